"""Face swap without weights: the donor's inner face, warped, relit and blended onto the base."""
