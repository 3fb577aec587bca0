"""The Anomaly panel."""
