"""Runs inside the Label Studio server: Django and the standard library only."""

TESTED = "1.23.2"
"""The Label Studio version whose addresses, names and pages the guard knows."""
