"""The Reader Study panel."""
