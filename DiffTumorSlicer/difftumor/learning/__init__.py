"""Segmentation learned from a few labeled slices of a case."""
