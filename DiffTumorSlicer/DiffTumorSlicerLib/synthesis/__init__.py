"""Synthetic tumors in the scene: the request, the ellipsoid and the result."""
