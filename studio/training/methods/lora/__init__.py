"""The method `lora`: low-rank differences of a checkpoint's weights, saved as a file that every program loads."""
