"""A small CLIP pair trained from nothing on drawn scenes: pictures and captions as vectors that agree where they belong together."""
