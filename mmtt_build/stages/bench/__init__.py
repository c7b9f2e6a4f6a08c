"""Bench: each step, network and rule beside a naive twin, see `suite`. Empty: worker processes import what they need."""
