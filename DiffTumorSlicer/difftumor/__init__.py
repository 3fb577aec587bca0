"""DiffTumor engine: diffusion models on tumors, independent of Slicer (research use only)."""

__version__ = "0.1.0"
