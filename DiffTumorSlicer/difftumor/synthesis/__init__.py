"""Synthetic tumors: where, of what shape, and painted by which generator."""
