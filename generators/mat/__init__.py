"""Method `mat`: parts of a face filled by a mask-aware transformer."""
