"""The published label rule against a direct reading of its table."""

from __future__ import annotations

import random
import re

from mmtt_build.parts import LABELS
from qc import official

# The table as published, one label a line, brackets for optional letters.
TABLE = """
eye: eye, eyes, ocular, optic, vision
pupil: pupil, pupils
lip: lip, lips, labium, labia
mouth: mouth, mouths, oral cavity, buccal
nose: nose, noses, nasal, nostril, nostrils
ear: ear, ears, auricle, pinna, pinnae
cheek: cheek, cheeks, buccal, malar
forehead: forehead, frontal, brow, brows
chin: chin, chins, mentum
jaw: jaw, jaws, mandible, maxilla
eyebrow: eyebrow, eyebrows
tooth: tooth, teeth, dentition
tongue: tongue, tongues, glossa, lingua
beard: beard, beards, facial hair
mustache: mustache, mustaches, moustache, moustaches
skin: skin, derma, epidermis, cutis
hair: hair, hairs, locks, tresses, strands
wrinkle: wrinkle, wrinkles, line, lines, crease, creases
freckle: freckle, freckles, lentigo, lentigines
scar: scar, scars, cicatrix, cicatrices
dimple: dimple, dimples, fossa, fossae
"""


def read_directly(text: str) -> list[int]:
    """One search a word, as the table is read: whole words, any case."""
    rows = [line.partition(": ") for line in TABLE.strip().splitlines()]
    words = {label: listed.split(", ") for label, _, listed in rows}
    return [int(any(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in words[label])) for label in LABELS]


def test_a_thousand_random_texts() -> None:
    draw = random.Random(7)
    words = [word for line in TABLE.strip().splitlines() for word in line.partition(": ")[2].split(", ")]
    noise = [
        "eyelid",
        "hairline",
        "the",
        "facial",
        "oral",
        "cavity",
        "browse",
        "linear",
        "_nose_",
        "nose_",
        "éye",
        "鼻子",
    ]
    joints = [" ", " ", " ", ", ", "-", ".", "\n", "'s ", "_", "", "  ", "\t", "/", "7"]
    vectors = set()
    for _ in range(1000):
        picked = [draw.choice(words if draw.random() < 0.4 else noise) for _ in range(draw.randrange(0, 24))]
        cased = [draw.choice([str.lower, str.upper, str.title, str.swapcase])(word) for word in picked]
        text = "".join(word + draw.choice(joints) for word in cased)
        assert official.vector(text) == read_directly(text), text
        vectors.add(tuple(official.vector(text)))
    assert len(vectors) > 500


def test_its_known_properties() -> None:
    def named(text: str) -> list[str]:
        return [label for label, there in zip(LABELS, official.vector(text), strict=True) if there]

    assert named("Her brows") == ["forehead"]
    assert named("facial hair") == ["beard", "hair"]
    assert named("buccal") == ["mouth", "cheek"]
    assert named("hairline, bangs, jawline, cheekbone, eyelid, eyelash, iris, goatee, complexion") == []
    assert named("No nose, blending line") == ["nose", "wrinkle"]
    assert [m.label for m in official.mentions("facial  hair")] == ["hair"]
    assert [(m.label, m.start, m.end) for m in official.mentions("a BUCCAL scar")] == [
        ("mouth", 2, 8),
        ("cheek", 2, 8),
        ("scar", 9, 13),
    ]


def test_letters_that_match_in_any_case() -> None:
    for text in ("no\u017fe", "\u212aS\u212aIN s\u212ain", "l\u0131p", "L\u0130P"):
        assert official.vector(text) == read_directly(text)
        official.mentions(text)
