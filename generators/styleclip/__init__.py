"""StyleCLIP: attribute edits of a face by text, in the latent spaces of StyleGAN2."""
