"""Model files: the registry, downloads, safe reading of checkpoints, and model folders."""
