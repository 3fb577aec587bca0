"""Scans, phantoms and slices to learn from."""
