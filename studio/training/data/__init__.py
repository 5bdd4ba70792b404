"""Where training pictures and captions come from."""
