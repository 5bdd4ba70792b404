"""Captioned scenes drawn from emoji glyphs and vector shapes: the data that the embedded model is made from."""
