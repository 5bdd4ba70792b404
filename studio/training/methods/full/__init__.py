"""The method `full`: all weights of the U-Net learn, and a new checkpoint is written."""
