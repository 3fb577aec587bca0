"""The Models panel."""
