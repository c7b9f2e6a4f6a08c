"""Faces through networks: which part each pixel belongs to, and who is there."""
