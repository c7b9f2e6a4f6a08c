"""Drawn portraits: faces that nobody owns, with exact part maps and landmarks.

They carry the demo, the tests and newcomers without data through the same adapters as photographs do.
"""

from mmtt_build.portraits.draw import LICENCE, Portrait, draw

__all__ = ["LICENCE", "Portrait", "draw"]
