"""Segmentations in the scene: the request, painted slices and the result."""
