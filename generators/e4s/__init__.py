"""Method `e4s`: a donor's face in the target's pose, generated region by region."""
