"""Lesions measured, and predictions compared with references."""
