"""Segmentation learned from a few labelled slices of a case."""
