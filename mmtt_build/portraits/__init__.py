"""Drawn portraits: faces that nobody owns, with exact part maps and landmarks.

They carry the demo, the tests and newcomers without data through the same adapters as photographs do.
"""

from mmtt_build.portraits.draw import LICENCE, SIZES, Portrait, draw
from mmtt_build.portraits.layouts import write_celebamask_hq, write_ffhq

__all__ = ["LICENCE", "SIZES", "Portrait", "draw", "write_celebamask_hq", "write_ffhq"]
