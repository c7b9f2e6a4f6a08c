"""Annotation of forged pairs by people."""
