"""What the face editors share: where the face lies, which pixels an edit may change, and how it gets into the photo.

A generator never shows the photo itself but its inversion: the same face with other colours, less texture, features a
pixel or two off. So the photo is not replaced by the edited picture. What the edit changed against the inversion is
brought into the photo, in the photo's own colours and grain, inside the parts that the attribute is about; where the
edit did nothing, the photo stays as it is even inside the mask.

Pictures are (512, 512, 3) uint8 RGB, part maps (512, 512) uint8, in the pixels of the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from generators import blending, ffhq_align, regions
from generators.base import Forged, Rejection
from generators.classical import FEATURES, Floats, box_around, soften
from generators.ffhq_align import AlignmentError, Points
from generators.regions import Region, RegionError
from mmtt_build import parts
from mmtt_build.masks import MIN_CHANGED_SHARE, Image, Mask
from mmtt_build.parts import LabelMap
from mmtt_build.records import SIZE

GROW_PX = 8
"""By how much the mask exceeds the parts: the old brow goes as a whole, and the new one comes in over this width."""

MAX_SHARE = 0.85
"""Largest share of the frame of a mask: a head that turns takes its hair along. The rest shows whose photo it is."""

CHANGED = 12.0
"""Grey levels by which an edit changes a pixel's surroundings where mostly the edited picture is shown."""
VISIBLE = 6.0
"""Grey levels from which on a pixel counts as changed by the edit; less is what any W+ step does to a whole picture."""

_MARGIN_PX = 48
_STEP = 4
_GAIN = (0.75, 1.33)


# --- where the face is -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frame:
    """Where in a photo (512, 512, 3) the aligned face lies.

    Attributes:
        corners: (4, 2) quad of `ffhq_align`; None where the photo is aligned already and the face is all of it.
    """

    corners: Points | None = None

    @staticmethod
    def of(points: Sequence[float]) -> Frame:
        """Of a photo whose `Pristine.points` are known.

        Raises:
            AlignmentError: they make no quad, or one that no generator's picture could fill.
        """
        corners = ffhq_align.quad(ffhq_align.anchors5(points))
        if ffhq_align.is_aligned(corners, (SIZE, SIZE)):
            return Frame()
        if float(np.hypot(*(corners[3] - corners[0]))) > 2 * SIZE:
            raise AlignmentError("the face is cut off: less than a quarter of an aligned picture would be the photo's")
        return Frame(corners)

    def cut_out(self, photo: Image, size: int = ffhq_align.ENCODER_SIZE) -> Image:
        """The aligned face, (size, size, 3) uint8 RGB, as e4e's encoder takes it (256) or a parser (512)."""
        if self.corners is not None:
            return ffhq_align.cut_out(photo, self.corners, size)
        return np.array(PillowImage.fromarray(photo).resize((size, size), PillowImage.Resampling.BILINEAR))

    def back(self, picture: Image) -> Image:
        """A generator's picture (n, n, 3) in the photo's pixels, (512, 512, 3)."""
        if self.corners is not None:
            return ffhq_align.put_back(picture, self.corners, (SIZE, SIZE))[0]
        how = cv2.INTER_AREA if picture.shape[0] > SIZE else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(picture, (SIZE, SIZE), interpolation=how), np.uint8)

    def labels_back(self, labels: LabelMap) -> LabelMap:
        """The part map (n, n) of a generator's picture in the photo's pixels, (512, 512)."""
        if self.corners is not None:
            return ffhq_align.labels_back(labels, self.corners, (SIZE, SIZE))
        return np.asarray(cv2.resize(labels, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST), np.uint8)

    def inside(self) -> Mask:
        """Pixels of the photo that a generator's picture shows, its rim aside, (512, 512) bool."""
        if self.corners is None:
            return np.ones((SIZE, SIZE), np.bool_)
        return ffhq_align.put_back(np.zeros((1, 1, 3), np.uint8), self.corners, (SIZE, SIZE))[1] == 1


# --- which pixels ------------------------------------------------------------------------------------------------


def region(before: LabelMap, after: LabelMap, names: Sequence[str], within: Mask | None = None) -> Region:
    """M_semantic: the parts as they were and as they are now, joined and grown, without the features not named.

    Args:
        before: part map of the base.
        after: part map of the edited picture.
        names: parsing classes that the attribute changes; not all need be there.
        within: pixels that the edited picture shows; None is all.

    Raises:
        RegionError: there is none of the parts, or the mask would be too thin or too large.
    """
    chosen = _without_slivers(parts.select(before, names) | parts.select(after, names))
    if not chosen.any():
        raise RegionError(f"empty mask: neither picture shows {', '.join(names)}")
    others = [name for name in FEATURES if name not in names]
    kept = parts.select(before, others) | parts.select(after, others)
    return regions.hole(chosen, kept if within is None else kept | ~within, GROW_PX, MAX_SHARE)


def _without_slivers(mask: Mask) -> Mask:
    """A mask without pieces that are less than a part: a parser leaves specks in what a generator made."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= regions.MIN_PART_PX
    large[0] = False  # what is not masked
    return np.asarray(large[pieces], np.bool_) if count > 1 else mask


# --- how it looks ------------------------------------------------------------------------------------------------


class Tone(NamedTuple):
    """How an inversion's colours become the photo's: gain * colour + shift.

    Attributes:
        gain: (3,) float32.
        shift: (512, 512, 3) float32, slowly varying.
    """

    gain: Floats
    shift: Floats

    def apply(self, picture: Image, window: tuple[slice, slice]) -> Floats:
        """A window of a picture (512, 512, 3) in the photo's colours, (h, w, 3) float32."""
        return picture[window] * self.gain + self.shift[window]


def tone(base: Image, inversion: Image, within: Mask | None = None) -> Tone:
    """Fits the colours of an inversion to those of the photo that it stands for.

    One gain and shift per channel for the whole picture, so that it also holds for what the edit brings in, such as
    hair over a wall; on top of it a smooth shift for light that the inversion got wrong. Fitted robustly on flat areas:
    where an outline is a pixel off, the difference says nothing about colour.

    Args:
        base: the photo.
        inversion: what the generator makes of it.
        within: pixels that the inversion shows; None is all.
    """
    size = (SIZE // _STEP, SIZE // _STEP)
    theirs, ours = (cv2.resize(p, size, interpolation=cv2.INTER_AREA).astype(np.float32) for p in (base, inversion))
    trust = 1 / (1 + (_slope(theirs) + _slope(ours)) / 4)  # half at 2 levels a pixel
    if within is not None:
        trust *= cv2.resize(within.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    gain, shift = np.array([_line(ours[..., c], theirs[..., c], trust) for c in range(3)], np.float32).T
    rest = theirs - (ours * gain + shift)
    trust = trust / (1 + (np.abs(rest).max(axis=2) / 10) ** 2) ** 2
    local = cv2.resize(_spread(rest, trust, 6, 0.05), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    return Tone(gain, shift + local)


def transfer(
    base: Image, inversion: Image, edited: Image, hole: Region, skin: Mask, rng: np.random.Generator, like: Tone
) -> tuple[Image, Floats]:
    """Brings what an edit changed into the photo, inside the hole only.

    Args:
        base: the photo.
        inversion: what the generator makes of it.
        edited: what the generator makes of the edited code.
        hole: where.
        skin: where base and edited picture both show skin, on which sharpness and grain are judged.
        rng: of the row.
        like: `tone` of base and inversion.

    Returns:
        The forgery, equal to the base outside the hole, and by how many grey levels the edit changed each of the hole's
        pixels (n,), what it does around the hole as well taken off.
    """
    window = box_around(hole.mask, _MARGIN_PX).window
    mask, old = hole.mask[window], base[window].astype(np.float32)
    new = like.apply(edited, window)
    change = new - like.apply(inversion, window)
    # An edit shifts the whole picture a little: that is its side effect, and would show as a patch.
    around = (~mask).astype(np.float32)
    typical = np.median(change[~mask][::7], axis=0) if np.count_nonzero(around) > 7 else np.zeros(3, np.float32)
    trust = around / (1 + (np.abs(change - typical).max(axis=2) / 5) ** 2) ** 2
    side = typical + _spread(change - typical, trust, 16, 0.02)
    new, change = new - side, change - side
    strength = np.abs(change).max(axis=2)
    # Little change: the photo plus the change, so that its pores stay. Much change, a lash's width around it included,
    # or the photo's own lash would stay beside the new one: the edited picture.
    near = soften(cv2.dilate(strength, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))), 2.0)
    little = np.exp(-((near / CHANGED) ** 2))[..., None]
    fine = blending.match_detail(old, new, skin[window], rng)
    donor = fine + little * (old + change - fine)
    mixed, _ = blending.mix_bands(old, donor, hole.depth[window], GROW_PX / 2)
    out = base.copy()
    out[window][mask] = blending.to_rgb(mixed)[mask]
    return out, np.asarray(soften(strength, 2.5)[mask], np.float32)


def compose(
    base: Image,
    inversion: Image,
    edited: Image,
    before: LabelMap,
    after: LabelMap,
    names: Sequence[str],
    rng: np.random.Generator,
    within: Mask | None = None,
) -> Forged | Rejection:
    """The forgery of an edit, or why there is none.

    Args:
        base: the photo.
        inversion: what the generator makes of it.
        edited: what the generator makes of the edited code.
        before: part map of the base.
        after: part map of the edited picture.
        names: parsing classes that the attribute changes.
        rng: of the row.
        within: pixels of the photo that the generator's pictures show; None is all.

    Returns:
        Image, mask (M_semantic) and facts: by how many grey levels the edit changed the masked pixels on average, and
        the share that it changed visibly.
    """
    try:
        hole = region(before, after, names, within)
    except RegionError as error:
        return Rejection(str(error))
    skin = parts.select(before, ("skin",)) & parts.select(after, ("skin",))
    image, strength = transfer(base, inversion, edited, hole, skin, rng, tone(base, inversion, within))
    share = float(np.count_nonzero(strength >= VISIBLE) / len(strength))
    facts: dict[str, Any] = {
        "edit_change": round(float(strength.mean()), 2),
        "edit_share": round(share, 4),
    }
    if share < MIN_CHANGED_SHARE:
        return Rejection(
            f"no-op: the edit changes {share:.1%} of the mask visibly (at least {MIN_CHANGED_SHARE:.0%}), "
            f"{facts['edit_change']:g} grey levels on average"
        )
    return Forged(image, hole.mask, facts)


def _slope(picture: Floats) -> Floats:
    """Squared change of light per pixel, the largest of the channels, (h, w)."""
    soft = soften(picture, 1.5)
    squares = (cv2.Sobel(soft, cv2.CV_32F, x, 1 - x, ksize=3, scale=0.25) ** 2 for x in (0, 1))
    return np.asarray(sum(squares).max(axis=2), np.float32)


def _line(x: NDArray[Any], y: NDArray[Any], trust: NDArray[Any]) -> tuple[float, float]:
    """Gain and shift with y = gain * x + shift, by reweighted least squares (Geman-McClure)."""
    x, y, trust = x.ravel(), y.ravel(), trust.ravel()
    gain, shift = 1.0, float(np.median((y - x)[trust > 0]))
    for _ in range(6):
        error = y - (gain * x + shift)
        weight = trust / (1 + (error / max(2.0, 1.5 * float(np.median(np.abs(error))))) ** 2) ** 2
        total = float(weight.sum()) + 1e-6
        mean_x, mean_y = float(weight @ x) / total, float(weight @ y) / total
        spread, both = float(weight @ (x - mean_x) ** 2) / total, float(weight @ ((x - mean_x) * (y - mean_y))) / total
        # The prior of gain 1 weighs as much as a spread of 5 levels: a dark, even picture tells no gain.
        gain = min(max((both + 25) / (spread + 25), _GAIN[0]), _GAIN[1])
        shift = mean_y - gain * mean_x
    return gain, shift


def _spread(values: Floats, weight: NDArray[Any], sigma_px: float, least: float) -> Floats:
    """Weighted local mean of values (h, w, 3) under a Gaussian; falls to 0 where weights are below `least` around."""
    weight = np.asarray(weight, np.float32)
    sums, total = soften(values * weight[..., None], sigma_px), soften(weight, sigma_px)
    return np.asarray(sums / (total + np.float32(least))[..., None], np.float32)
