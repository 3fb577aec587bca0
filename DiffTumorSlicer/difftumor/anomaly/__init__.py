"""Anomaly heat maps: slices rewritten as healthy, and what changed."""
