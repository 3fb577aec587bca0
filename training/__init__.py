"""Headless training programs: `python -m training.autoencoder`, `python -m training.latent_diffusion`.

Never installed into Slicer.  The order of reading is config, data, loop, then one of the two programs.
"""
