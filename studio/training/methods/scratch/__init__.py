"""A latent-diffusion model in Stable Diffusion's architecture, trained from nothing on drawn scenes or on a data set."""
