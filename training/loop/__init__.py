"""The training loop, its configuration and what a run leaves on disk."""
