"""HFGI: inversion with the details of the photo, and edits in W+."""
