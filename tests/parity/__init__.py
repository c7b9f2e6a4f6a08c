"""Parity: our networks against recorded outputs of the reference implementations, under the same weights.

`make parity REFERENCE=DIR` runs every case file of a folder. A case `<network>.case-<number>.npz` holds inputs and
outputs (whole, or every n-th value) and, as JSON in `meta`, how it was made. Its weights are not in any file: a
manifest (`<network>.manifest.json`) has a rule per tensor from which they are drawn.
"""
