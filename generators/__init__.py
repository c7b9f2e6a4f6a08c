"""Forgery methods: one folder per method, each importing only the ground floor of `mmtt_build`."""
