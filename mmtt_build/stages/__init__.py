"""The stages of the pipeline: one file each, importing the leaves lazily by registry name."""
