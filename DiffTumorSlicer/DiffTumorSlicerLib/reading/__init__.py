"""Reader studies in the scene: cases, views and marks."""
