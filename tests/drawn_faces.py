"""Drawn portraits as inputs of the methods, with the facts that ingest would note about them."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from generators import classical
from mmtt_build import parts
from mmtt_build.masks import Image
from mmtt_build.parts import LabelMap
from mmtt_build.portraits import draw
from mmtt_build.records import Pristine
from mmtt_build.sources.base import face_points

HAT, GLASSES, LONG_HAIR, PLAIN, BALD, LAUGHING = 0, 1, 2, 5, 7, 10


class Face(NamedTuple):
    image: Image
    labels: LabelMap
    facts: Pristine


@cache
def face(seed: int) -> Face:
    portrait = draw(seed, 512)
    return Face(portrait.image, portrait.labels, facts(portrait.image, portrait.labels))


def facts(image: Image, labels: LabelMap) -> Pristine:
    five = tuple(face_points(labels))
    skin = labels == parts.INDEX["skin"]
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[skin].mean(axis=0)
    return Pristine("x", "x", "CC0-1.0", tuple(parts.areas(labels).tolist()), five, tuple(lab.tolist()))


def from_landmarks(labels: LabelMap) -> LabelMap:
    """The map as landmarks would give it: no hair, neck or ears, skin a hull over the fringe, thick brows and eyes."""
    out = np.zeros_like(labels)
    out[classical.hull(parts.select(labels, classical.FACE))] = parts.INDEX["skin"]
    for name in classical.FEATURES:
        thick = 3 if name in (*classical.EYES, *classical.BROWS) else 0
        out[classical.grow(parts.select(labels, (name,)), thick)] = parts.INDEX[name]
    return out


def without(labels: LabelMap, name: str) -> LabelMap:
    return np.where(labels == parts.INDEX[name], parts.INDEX["skin"], labels).astype(np.uint8)
