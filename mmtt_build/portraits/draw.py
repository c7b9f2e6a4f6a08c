"""One portrait, from seed to pixels, part masks and landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mmtt_build.masks import Mask
from mmtt_build.parts import CLASSES, INDEX, LabelMap
from mmtt_build.portraits import dress, features, relief, skin
from mmtt_build.portraits.geometry import Geometry, build
from mmtt_build.portraits.hair import grow, lay, silhouette
from mmtt_build.portraits.person import Person, Shot, sample_person, sample_shot
from mmtt_build.portraits.raster import Coverage, Field, fill, noise, paint, soft

LICENCE = "CC0-1.0"
"""Licence of every drawn portrait."""

SIZES = (256, 512, 1024)
"""Sides in pixels that `draw` supports."""

_ON = 127  # coverage above which a pixel belongs to a part


@dataclass(frozen=True, slots=True)
class Portrait:
    """A drawn face with everything that is known about it.

    Attributes:
        image: (size, size, 3) uint8 RGB.
        labels: (size, size) uint8, the top-most visible class of each pixel as an index of `parts.CLASSES`.
        parts: part name to (size, size) bool, present parts only, as in CelebAMask-HQ: parts may overlap and
            laying them over each other in the order of `CLASSES` gives `labels`; skin has no holes
            below brows, eyes, nose, lips and glasses.
        landmarks: (68, 2) float32, x and y in pixels, in the order of dlib / iBUG.
        identity: number of the person.
    """

    image: NDArray[np.uint8]
    labels: LabelMap
    parts: dict[str, Mask]
    landmarks: NDArray[np.float32]
    identity: int


def draw(seed: int, size: int = 1024, identity: int | None = None) -> Portrait:
    """Draws a portrait, aligned as in FFHQ and CelebA-HQ. The same arguments give the same bytes.

    Args:
        seed: fixes expression, pose, light, background, clothes and accessories; not negative.
        size: side in pixels: 256, 512 or 1024.
        identity: fixes the person (bones, skin, hair, age); the seed when not given.

    Returns:
        The portrait; its licence is `LICENCE`.

    Raises:
        ValueError: the size is not one of `SIZES`, or seed or identity is negative.
    """
    if size not in SIZES:
        raise ValueError(f"size is {size}, must be one of {SIZES}")
    identity = seed if identity is None else identity
    if seed < 0 or identity < 0:
        raise ValueError(f"seed {seed} and identity {identity} must not be negative")
    person, shot = _sample(seed, identity)
    # one stream per layer, so that a portrait is the same picture at every size
    paper, grain, garment, metal, lash = (np.random.default_rng((identity, seed, k)) for k in range(3, 8))
    g = build(person, shot)
    hair = grow(g, person, shot)
    empty: Coverage = np.zeros((size, size), np.uint8)
    over_face = hair.front.cover(size) if hair.front else empty
    head, neck = fill(g.head, size), fill(g.neck, size)
    ears = [fill(ear, size) for ear in g.ears]
    body = np.maximum.reduce([head, neck, *ears])

    form = relief.model(g, person, shot, size, over_face)
    flesh, light = skin.render(g, person, shot, form, body, grain)
    image = dress.background(paper, size)
    if hair.back:
        lay(image, hair.back, person, shot)
    cover = dict.fromkeys(CLASSES[1:], empty)
    paint(image, flesh, body)

    cover["cloth"] = dress.cloth(image, g, shot, garment)
    paint(image, flesh, head)  # the chin lies before a high collar
    if shot.necklace:
        cover["neck_l"] = dress.necklace(image, g, shot, np.maximum(neck, cover["cloth"]))
    features.nostrils(image, g, person)
    cover["r_eye"], cover["l_eye"] = features.eyes(image, light, g, person, shot, lash)
    mouth = features.mouth(image, light, g, person, shot)
    if mouth is not None:
        cover["mouth"] = mouth
    cover["u_lip"], cover["l_lip"] = fill(g.upper_lip, size), fill(g.lower_lip, size)
    cover["r_brow"], cover["l_brow"] = features.brows(image, light, g, person)
    cover["nose"] = fill(g.nose_outline, size)
    beard = features.beard(image, light, g, person, np.maximum(cover["u_lip"], cover["l_lip"]))
    head = np.maximum(head, beard)

    rims = lens = empty
    if shot.glasses:
        rims, lens = dress.glasses(image, g, shot, metal)
    if hair.front:
        shadow = soft(over_face, 0.008)
        paint(image, np.array((0.012, 0.007, 0.005), np.float32), shadow * np.float32(0.30))
        lay(image, hair.front, person, shot)
    if shot.hat:
        cover["hat"] = dress.hat(image, g, shot, silhouette(g, 0.044, 0.04), garment)
    if shot.earrings:
        bare = np.maximum(*ears)
        bare[np.maximum(over_face, head) > _ON] = 0
        cover["ear_r"] = dress.earrings(image, g, shot, bare)
    cover["skin"], cover["neck"], (cover["r_ear"], cover["l_ear"]) = head, neck, ears
    back = hair.back.cover(size) if hair.back else empty
    parts = _parts(cover, over_face, back, rims, lens)
    return Portrait(
        image=_develop(image, shot.exposure, grain),
        labels=flatten(parts, size),
        parts=parts,
        landmarks=_pixels(g, size),
        identity=identity,
    )


def landmarks(seed: int, size: int = 1024, identity: int | None = None) -> NDArray[np.float32]:
    """The landmarks that `draw` would return, without drawing."""
    person, shot = _sample(seed, seed if identity is None else identity)
    return _pixels(build(person, shot), size)


def _sample(seed: int, identity: int) -> tuple[Person, Shot]:
    person = sample_person(np.random.default_rng((identity, 1)))
    return person, sample_shot(np.random.default_rng((identity, seed, 2)), person)


def _pixels(g: Geometry, size: int) -> NDArray[np.float32]:
    return (g.landmarks * size - 0.5).astype(np.float32)


def flatten(parts: dict[str, Mask], size: int) -> LabelMap:
    """Lays part masks over each other in the order of `CLASSES`, as CelebAMask-HQ does."""
    labels = np.zeros((size, size), np.uint8)
    for name in CLASSES[1:]:
        if name in parts:
            labels[parts[name]] = INDEX[name]
    return labels


def _parts(
    cover: dict[str, Coverage], front_hair: Coverage, back_hair: Coverage, rims: Coverage, lens: Coverage
) -> dict[str, Mask]:
    """Turns coverages into visible parts: what lies before one is taken out of it, but skin stays whole."""
    on = {name: c > _ON for name, c in cover.items()}
    front, back = front_hair > _ON, back_hair > _ON
    frame, glass = rims > _ON, lens > _ON
    body = on["skin"] | on["neck"] | on["l_ear"] | on["r_ear"] | on["cloth"]
    on["hair"] = front | (back & ~body)
    on["eye_g"] = frame | glass
    for name in CLASSES[1:]:
        if name in ("hat", "ear_r"):
            continue
        on[name] = on[name] & ~on["hat"]
        if name != "hair":
            on[name] &= ~front
    on["cloth"] &= ~on["skin"]
    on["neck"] &= ~(on["skin"] | on["l_ear"] | on["r_ear"] | on["cloth"])
    for name in ("l_ear", "r_ear"):
        on[name] &= ~(on["skin"] | frame)
    on["neck_l"] &= on["neck"] | on["cloth"]
    on["neck"] &= ~on["ear_r"]
    on["cloth"] &= ~(on["ear_r"] | on["neck_l"])
    on["neck"] &= ~on["neck_l"]
    for name in ("l_eye", "r_eye", "l_brow", "r_brow", "nose"):
        on[name] &= ~frame
    on["nose"] &= ~(on["l_eye"] | on["r_eye"])
    on["u_lip"] &= ~on["mouth"]
    on["l_lip"] &= ~(on["mouth"] | on["u_lip"])
    return {name: on[name] for name in CLASSES[1:] if on[name].any()}


def _develop(image: Field, exposure: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Linear light to 8 bits: soft shoulder, gamma, the grain of a sensor."""
    size = image.shape[0]
    value = np.maximum(image, 0)
    value *= np.float32(exposure)
    value *= (1 + value * np.float32(0.16)) / (1 + value * np.float32(0.36))
    encoded = cv2.pow(value, 1 / 2.2)
    encoded *= np.float32(255)
    encoded = cv2.GaussianBlur(encoded, (0, 0), max(0.35, 0.55 * size / 1024))
    grain = rng.standard_normal((size, size), np.float32) * np.float32(1.3)
    grain += noise(rng, size, size / 2.2) * np.float32(0.9)
    # adds, rounds and saturates in one pass
    return np.asarray(cv2.add(encoded, cv2.merge([grain] * 3), dtype=cv2.CV_8U), np.uint8)
