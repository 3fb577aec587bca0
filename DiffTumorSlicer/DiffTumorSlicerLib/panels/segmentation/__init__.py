"""The Segmentation panel."""
