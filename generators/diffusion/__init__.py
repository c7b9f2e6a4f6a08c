"""Methods of diffusion inpainting: one adapter for the inpainting pipelines of diffusers."""
