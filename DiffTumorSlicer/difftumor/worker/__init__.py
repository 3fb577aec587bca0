"""The resident process that computes, and the bridge that speaks to it."""
