"""The records that stages exchange. Their row form is in `schema`, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

SIZE = 512
"""Side of every stored image and mask, in pixels (MMTT, section on data sources)."""

ORIGINS = ("human", "draft-edited", "scripted")
"""Whose words a description is, the better first: a person's own, a person's who was shown a model's draft, a
program's."""


@dataclass(frozen=True, slots=True)
class Pristine:
    """Facts about one unmanipulated face, as far as planning needs them; no pixels.

    Attributes:
        id: `<source>-<name>`, e.g. "celebamask-hq-00017".
        identity_group: all images of one person (and near-duplicates); the atom of a split.
        licence: short name of the image's own licence.
        part_areas: pixels of each of the 19 parsing classes at 512x512; all zero without a part map.
        points: x, y of subject's left eye, right eye, nose, mouth's left and right corner, in pixels at
            512x512 (10 numbers); empty when the part map lacks one of them.
        skin_lab: mean CIE L*a*b* of the skin, 3 numbers in OpenCV's float range; empty without skin.
        turn: yaw, pitch, roll of the head in degrees; empty without a face analysis that knows it.
        pack: the catalogue's name of the pack that analysed the face; "" without, or where that was one's own folder.
    """

    id: str
    identity_group: str
    licence: str
    part_areas: tuple[int, ...]
    points: tuple[float, ...]
    skin_lab: tuple[float, ...]
    turn: tuple[float, ...] = ()
    pack: str = ""

    def area(self, index: int) -> int:
        """Pixels of the parsing class with this index."""
        return self.part_areas[index]


@dataclass(frozen=True, slots=True)
class Annotation:
    """What one annotator said of one forgery.

    Attributes:
        id: annotation id.
        forgery_id: the forgery it describes.
        answer: "described", "nothing-visible" or "broken-pair".
        description: the annotator's own words, or None.
        language: ISO 639-1 code.
        labels: 21 zeros and ones in the order of `parts.LABELS`, or None.
        annotator: pseudonymous id.
        observation_s: seconds from the pair being shown to the submission, or None.
        origin: one of `ORIGINS`; only the first is human text.
    """

    id: str
    forgery_id: str
    answer: str
    description: str | None
    language: str | None
    labels: tuple[int, ...] | None
    annotator: str
    observation_s: float | None
    origin: str
