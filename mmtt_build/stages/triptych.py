"""The three pictures of a forgery, as an annotator saw them: pristine, forged, and where the mask lies."""

from __future__ import annotations

from dataclasses import dataclass

from mmtt_build import images, masks
from mmtt_build.errors import MmttError
from mmtt_build.records import SIZE, Forged
from mmtt_build.stages.sheet import overlay
from mmtt_build.workspace import Workspace

NAMES = ("pristine", "forged", "mask")


@dataclass(frozen=True, slots=True)
class Picture:
    """One of the three.

    Attributes:
        name: what it shows.
        image: (512, 512, 3) uint8 RGB, or None.
        missing: why it is None.
    """

    name: str
    image: images.Image | None
    missing: str = ""


def triptych(workspace: Workspace, forged: Forged | None, *, control: bool = False) -> list[Picture]:
    """Pristine, forged and mask overlay; what cannot be read is missing, with the reason.

    Args:
        workspace: has the files.
        forged: of which forgery, or None of what is none of the workspace's.
        control: shows the pristine image as the forged one, under this forgery's mask.
    """
    if forged is None:
        return [Picture(name, None, "no such forgery") for name in NAMES]
    base = _read(workspace, NAMES[0], forged.base)
    shown = (
        Picture("shown as forged", base.image, base.missing) if control else _read(workspace, NAMES[1], forged.image)
    )
    mask = _read(workspace, NAMES[2], forged.mask, grey=True)
    if mask.image is not None and shown.image is not None:
        mask = Picture(NAMES[2], overlay(shown.image, masks.from_grey(mask.image)))
    elif mask.image is not None:
        mask = Picture(NAMES[2], None, "nothing to lay it over")
    return [base, shown, mask]


def _read(workspace: Workspace, name: str, path: str | None, grey: bool = False) -> Picture:
    if path is None:
        return Picture(name, None, "no file")
    try:
        image = images.decode_stored(images.read_bytes(workspace.resolve(path)), grey)
    except MmttError as error:
        return Picture(name, None, error.message)
    if image.shape[:2] != (SIZE, SIZE):
        return Picture(name, None, f"{image.shape[1]}x{image.shape[0]} pixels")
    return Picture(name, image)
