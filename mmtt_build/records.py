"""The records that stages exchange. Their row form is in `schema`, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

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
class Forged:
    """Where a forgery lies, and what QC knows of it; no pixels.

    Attributes:
        id: forgery id.
        status: "ok", or why it cannot be used.
        method: its name.
        split: its name.
        base: path of the pristine image, relative to the workspace, or None, like all that follows.
        base_parts: path of its part map.
        image: path of the forged image.
        mask: path of the manipulation mask.
        parts: path of the part map of the result; without one the base's still fits.
        points: of the base, as `Pristine.points`.
        landmarks: of the base, 68 x, y at 512 px.
        crcs: CRC-32 of the PNG files of image, mask and parts as they were stored.
        cover: what the mask covers of each part, see `qc.regions`, once it was measured.
    """

    id: str
    status: str
    method: str | None = None
    split: str | None = None
    base: str | None = None
    base_parts: str | None = None
    image: str | None = None
    mask: str | None = None
    parts: str | None = None
    points: tuple[float, ...] | None = None
    landmarks: tuple[float, ...] | None = None
    crcs: tuple[int | None, int | None, int | None] = (None, None, None)
    cover: tuple[float | None, ...] | None = None


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
        kind: "pair", "repeat" (another annotator's pair once more) or "control" (a pristine shown as forged).
        task: its id, or None of what was never on a server, like all that follows.
        sides: subject's sides that were ticked of paired labels, e.g. "eye.left".
        created_at: when it was submitted, by the server's clock, like the next two.
        updated_at: when it was changed last.
        served_at: when the pair was first shown.
        lead_time_s: seconds as the browser counts them.
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
    kind: str = "pair"
    task: str | None = None
    sides: tuple[str, ...] = ()
    created_at: datetime | None = None
    updated_at: datetime | None = None
    served_at: datetime | None = None
    lead_time_s: float | None = None
