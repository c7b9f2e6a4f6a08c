"""mmtt-build: builds datasets of forged faces, pixel-exact masks and human descriptions."""

__version__ = "0.1.0"
