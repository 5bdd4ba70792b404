"""What the methods share that train a checkpoint further: base, caches, batches, loss, optimizers, the loop, validation, samples."""
