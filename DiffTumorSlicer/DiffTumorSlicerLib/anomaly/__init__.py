"""Anomaly heat maps in the scene: the request, the map and what is drawn from it."""
