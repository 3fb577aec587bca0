"""Segmentation of tumors with trained networks."""
