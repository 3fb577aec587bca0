"""The Volumes panel."""
