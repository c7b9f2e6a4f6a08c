"""Method `warp`: smooth local edits of a face's geometry."""
