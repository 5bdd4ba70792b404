"""Latent Studio: paint with Stable Diffusion, watch every step, and keep a picture's whole history inside its PNG."""

__version__ = "0.1.0"
