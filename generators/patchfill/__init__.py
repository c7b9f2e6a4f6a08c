"""Method `patchfill`: parts and patches of a face filled from its other skin, or from its other side."""
