"""Fills holes in skin so that the fill looks like skin: the grain of other skin on the light of the rim.

Plain diffusion inpainting (Telea, Navier-Stokes) leaves a smooth smear in a hole of this size. Here colour and light
are continued from the rim by a spline under tension, and on top comes the detail of another stretch of the same face's
skin: a healing brush (Georgiev 2005), that is, seamless cloning (Perez et al. 2003) of a chosen donor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve

from mmtt_build.masks import Image

Floats = NDArray[np.float32]
Region = NDArray[np.uint8]
"""(H, W) uint8 of 0 and 1."""
Cells = NDArray[np.bool_]

CELL = 4
"""Side in pixels of the cells of the coarse grid on which donors are sought and membranes are solved."""
LIGHT_CELLS = 2.0
"""Sigma, in cells, that parts light from detail: blotches and pores are taken from the donor, its shading is not."""
SLACKNESS = 0.1
"""Weight of tension against stiffness: the rim's slope reaches about 1 / sqrt(0.1) = 3 cells into a hole."""
RIM_CELLS = 2
"""Width of the rim that a donor's surroundings are compared along."""
MAX_DONORS = 4
HAIRY_GRAIN = 8.0
"""RMS in grey levels of the finest detail along a rim from which on it is hair: skin has 1 to 6, a beard 10 to 20."""
MAX_SMOOTHER = 2.3
"""How many times weaker than a hairy rim the grain of a donor may be, before it is a bald patch in a beard."""


class NoSkinError(ValueError):
    """There is not enough fitting skin in the face, or around the hole, to fill it from."""


@dataclass(frozen=True, slots=True)
class _Coarse:
    """The face per cell: mean colour; energy of its grain; how unfit it is as a donor, for structure or for dirt."""

    colour: Floats
    grain: Floats
    unfit: Floats

    def flipped(self) -> _Coarse:
        """The same of the mirrored face."""
        return _Coarse(*(np.ascontiguousarray(a[:, ::-1]) for a in (self.colour, self.grain, self.unfit)))


def heal(image: Image, holes: Region, donors: Region, rim: Region) -> Floats:
    """Fills holes with skin.

    Each hole takes the stretch of donor skin, as it is or mirrored, whose surroundings are most like its own, with
    as much grain and the least structure. Where that covers a part of the hole only, the rest takes another.

    Args:
        image: (H, W, 3) uint8 RGB, H and W multiples of `CELL`.
        holes: what to fill, (H, W) of 0 and 1, with a margin of clean skin around what is to go; pieces that do not
            touch are filled one by one.
        donors: skin to take from.
        rim: skin to join to. Pixels of holes count neither as donors nor as rim.

    Returns:
        (H, W, 3) float32 in [0, 255]: the image with the holes filled, hard-edged.

    Raises:
        NoSkinError: no donor fits, or the rim is not skin.
    """
    filled = image.astype(np.float32)
    donors, rim = donors & ~holes, rim & ~holes
    plain, detail = _analyse(filled, donors)
    mirrored = plain.flipped()
    count, pieces = cv2.connectedComponents(holes, connectivity=8)
    for piece in range(1, count):
        hole = (pieces == piece).view(np.uint8)
        box = surroundings(hole)
        hole = hole[box]
        filled[box] = _heal_one(filled[box], hole, box, rim[box], donors, detail, plain, mirrored)
    return filled


def _heal_one(
    image: Floats,
    hole: Region,
    box: tuple[slice, slice],
    rim: Region,
    donors: Region,
    detail: Floats,
    plain: _Coarse,
    mirrored: _Coarse,
) -> Floats:
    """The box of the image with its hole filled."""
    rest = hole.copy()
    for _ in range(MAX_DONORS):
        (dx, dy), flip = _best_donor(plain, mirrored, rest, rim, box)
        now = rest & _taken(donors, box, dx, dy, flip)
        if cv2.countNonZero(now) < 0.2 * cv2.countNonZero(rest):
            break
        image = fit(image, _taken(detail, box, dx, dy, flip), now, rim | (hole & ~rest))
        rest &= ~now
        if not rest.any():
            return image
    if cv2.countNonZero(rest) > 0.1 * cv2.countNonZero(hole):
        raise NoSkinError("no clean skin of the hole's shape")
    return fit(image, np.zeros_like(image), rest, rim | (hole & ~rest))


def fit(image: Floats, donor: Floats, hole: Region, rim: Region) -> Floats:
    """Puts a donor into a hole, with the colour difference along the rim spread over it as a membrane.

    Args:
        image: (H, W, 3) in [0, 255], H and W multiples of `CELL`.
        donor: the same, aligned: donor[p] is put at p.
        hole: where it is put.
        rim: pixels outside the hole where image and donor may be compared; elsewhere the hole's edge is left free.

    Returns:
        (H, W, 3) in [0, 255].

    Raises:
        NoSkinError: the hole has no rim to join to.
    """
    weight = (rim & ~hole).astype(np.float32)
    known = _per_cell(weight)
    # A little blur along the rim, so that single hairs and pores there do not fan out into the hole.
    difference = cv2.blur(_per_cell((image - donor) * weight[..., None]), (3, 3))
    near = cv2.blur(known, (3, 3))
    solved = membrane(difference / np.maximum(near, 1e-3)[..., None], known > 0.2, _per_cell(hole * 1.0) > 0)
    smooth = cv2.resize(solved, hole.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(hole[..., None] > 0, np.clip(donor + smooth, 0, 255), image)


def membrane(values: Floats, known: Cells, wanted: Cells) -> Floats:
    """Continues known cells into wanted ones: a stiff membrane, which keeps the rim's slope for some cells inwards.

    Minimises the squared Laplacian plus `SLACKNESS` times the squared gradient (a spline under tension). The
    membrane alone would break the shading at the rim, and that outline is what the eye sees first.

    Args:
        values: (h, w, 3), used where known.
        known: cells that hold their value, unless wanted.
        wanted: cells to solve for. Neighbours that are neither wanted nor known take no part.

    Returns:
        (h, w, 3): the solution in the wanted cells and in those around them, which interpolation to pixels reads.
        It stays within the range of the known values. Cells joined to nothing known get their mean.

    Raises:
        NoSkinError: nothing is known.
    """
    held = known & ~wanted
    if not held.any():
        raise NoSkinError("the hole's rim is not skin anywhere")
    free = wanted | ((cv2.dilate(wanted.view(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~held)
    _, pieces = cv2.connectedComponents((free | held).view(np.uint8), connectivity=4)
    free &= np.isin(pieces, pieces[held])
    member = free | held
    number = np.zeros(member.shape, np.intp)
    number[member] = np.arange(np.count_nonzero(member))
    pairs = [
        (number[a][member[a] & member[b]], number[b][member[a] & member[b]])
        for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:, :], np.s_[:-1, :]))
    ]
    first, second = np.concatenate(pairs, axis=1)
    count, links = int(number.max()) + 1, len(first)
    ends = np.concatenate([first, second]), np.tile(np.arange(links), 2)
    gradient = sparse.csr_matrix((np.repeat([1.0, -1.0], links), ends[::-1]), (links, count))
    laplacian = (gradient.T @ gradient).tocsr()
    energy = (laplacian @ laplacian + SLACKNESS * laplacian).tocsr()
    unknown, given = number[free], number[held]
    rows = energy[unknown]
    solved = spsolve(rows[:, unknown].tocsc(), -rows[:, given] @ values[held])
    result = np.where(held[..., None], values, values[held].mean(0)).astype(np.float32)
    result[free] = np.clip(solved, values[held].min(0), values[held].max(0))
    return result


def surroundings(hole: Region) -> tuple[slice, slice]:
    """The bounding box of a hole with room for the rim, on whole cells."""
    x, y, width, height = cv2.boundingRect(hole)
    margin = CELL * (RIM_CELLS + 1)
    top, left = max(0, y - margin) // CELL * CELL, max(0, x - margin) // CELL * CELL
    bottom, right = -(-(y + height + margin) // CELL) * CELL, -(-(x + width + margin) // CELL) * CELL
    return slice(top, min(bottom, hole.shape[0])), slice(left, min(right, hole.shape[1]))


def _per_cell(pixels: NDArray[Any]) -> Floats:
    height, width = pixels.shape[:2]
    size = width // CELL, height // CELL
    return np.asarray(cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_AREA))


def _taken(picture: NDArray[Any], box: tuple[slice, slice], dx: int, dy: int, flip: bool) -> NDArray[Any]:
    """What lies (dx, dy) from a box in a picture, or in its mirror image; 0 beyond the frame."""
    top, left = box[0].start + dy, box[1].start + dx
    matrix = np.array([[-1.0, 0, picture.shape[1] - 1 - left] if flip else [1.0, 0, left], [0, 1, top]])
    size = box[1].stop - box[1].start, box[0].stop - box[0].start
    return cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)


def _analyse(image: Floats, donors: Region) -> tuple[_Coarse, Floats]:
    """The coarse view of a face, and its detail: (H, W, 3), the image less its light; 0 where no donor is."""
    share = _per_cell(donors)
    light = cv2.GaussianBlur(_per_cell(image * donors[..., None]), (0, 0), LIGHT_CELLS)
    light /= np.maximum(cv2.GaussianBlur(share, (0, 0), LIGHT_CELLS), 0.02)[..., None]
    detail = image - cv2.resize(light, donors.shape[::-1], interpolation=cv2.INTER_LINEAR)
    grey = cv2.cvtColor(detail, cv2.COLOR_RGB2GRAY)
    coarse = cv2.blur(grey, (5, 5))
    fine = grey - coarse
    coarse *= donors
    coarse_view = _Coarse(
        colour=_per_cell(image),
        grain=_per_cell(fine * fine),
        unfit=_per_cell(coarse * coarse / 20) + np.float32(20) * (1 - share),
    )
    return coarse_view, detail * donors[..., None]


def _best_donor(
    plain: _Coarse, mirrored: _Coarse, hole: Region, rim: Region, box: tuple[slice, slice]
) -> tuple[tuple[int, int], bool]:
    """Shift in pixels from the hole to its best donor, and whether that lies in the mirrored picture."""
    y, x = box[0].start // CELL, box[1].start // CELL
    inside = (_per_cell(hole) > 0).view(np.uint8)
    around = cv2.dilate(inside, np.ones((2 * RIM_CELLS + 1,) * 2, np.uint8))
    edge = (around > inside) & (_per_cell(rim) > 0.5)
    cells = np.s_[y : y + hole.shape[0] // CELL, x : x + hole.shape[1] // CELL]
    kernel = inside / np.float32(np.count_nonzero(inside))
    edges = np.repeat(edge[..., None], 3, axis=2).astype(np.float32)
    grain = np.sqrt(plain.grain[cells][edge].mean()) + 0.5 if edge.any() else 0.0
    best: tuple[float, tuple[int, int], bool] = (np.inf, (0, 0), False)
    smoother = 1.0
    for picture, flip in ((plain, False), (mirrored, True)):
        cost = cv2.matchTemplate(picture.unfit, kernel, cv2.TM_CCORR)
        ratio = np.zeros_like(cost)
        if grain:  # what other donors left over may touch no rim
            colour = cv2.matchTemplate(picture.colour, plain.colour[cells], cv2.TM_SQDIFF, mask=edges)
            energy = cv2.matchTemplate(picture.grain, kernel, cv2.TM_CCORR)
            ratio = np.log((np.sqrt(np.maximum(energy, 0)) + 0.5) / grain)
            cost = cost + colour / edges.sum() / 400 + 2 * ratio**2
        lowest, _, (i, j), _ = cv2.minMaxLoc(cost)
        if lowest < best[0]:
            best = (lowest, (CELL * (i - x), CELL * (j - y)), flip)
            smoother = float(np.exp(-ratio[j, i]))
    if grain > HAIRY_GRAIN and smoother > MAX_SMOOTHER:
        raise NoSkinError(
            f"no skin as hairy as that around the hole (grain {grain:.1f}, {smoother:.1f} times the donor's)"
        )
    return best[1], best[2]
