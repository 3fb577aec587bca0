"""Headless training programs, for example `python -m training.synthesis.autoencoder`.

Never installed into Slicer.  The order of reading is config, data, loop, then one of the two programs.
"""
