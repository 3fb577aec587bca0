"""The Synthesis panel."""
