"""The published label rule: which of the 21 labels a text sets in MMTT's own `multilabel` vectors.

A label is set by any of its words, standing as whole words, in any case. The rule knows no sides and no negation, takes
"brow" for the forehead and every "line" for a wrinkle, and lets "buccal" set two labels. It is here to make vectors
that compare with the published ones; `qc.mentions` is what the audit believes.
"""

from __future__ import annotations

import re

from mmtt_build.parts import LABELS
from qc.mentions import Mention

WORDS: dict[str, tuple[str, ...]] = {
    "eye": ("eye", "eyes", "ocular", "optic", "vision"),
    "pupil": ("pupil", "pupils"),
    "lip": ("lip", "lips", "labium", "labia"),
    "mouth": ("mouth", "mouths", "oral cavity", "buccal"),
    "nose": ("nose", "noses", "nasal", "nostril", "nostrils"),
    "ear": ("ear", "ears", "auricle", "pinna", "pinnae"),
    "cheek": ("cheek", "cheeks", "buccal", "malar"),
    "forehead": ("forehead", "frontal", "brow", "brows"),
    "chin": ("chin", "chins", "mentum"),
    "jaw": ("jaw", "jaws", "mandible", "maxilla"),
    "eyebrow": ("eyebrow", "eyebrows"),
    "tooth": ("tooth", "teeth", "dentition"),
    "tongue": ("tongue", "tongues", "glossa", "lingua"),
    "beard": ("beard", "beards", "facial hair"),
    "mustache": ("mustache", "mustaches", "moustache", "moustaches"),
    "skin": ("skin", "derma", "epidermis", "cutis"),
    "hair": ("hair", "hairs", "locks", "tresses", "strands"),
    "wrinkle": ("wrinkle", "wrinkles", "line", "lines", "crease", "creases"),
    "freckle": ("freckle", "freckles", "lentigo", "lentigines"),
    "scar": ("scar", "scars", "cicatrix", "cicatrices"),
    "dimple": ("dimple", "dimples", "fossa", "fossae"),
}
"""The published table, in label order."""

_SETS: dict[str, list[str]] = {}
for _label, _words in WORDS.items():
    for _word in _words:
        _SETS.setdefault(_word, []).append(_label)

# One alternation instead of 21. Terms overlap only in "facial hair": it sets the beard and, by its "hair", the hair.
_SETS["facial hair"].append("hair")
_WORD = re.compile(rf"\b(?:{'|'.join(sorted(_SETS, key=len, reverse=True))})\b", re.IGNORECASE)


def mentions(text: str) -> list[Mention]:
    """What the published rule sees of a text: every word of its table, without side and never negated."""
    found = []
    for match in _WORD.finditer(text):
        found += [Mention(label, *match.span(), None, False) for label in _SETS[_key(match[0])]]
    return found


def vector(text: str) -> list[int]:
    """The published 21-vector of a text, 0 or 1 in the order of `parts.LABELS`."""
    named = {label for word in _WORD.findall(text) for label in _SETS[_key(word)]}
    return [int(label in named) for label in LABELS]


def _key(word: str) -> str:
    # In Unicode, "ſ" and "K" (the Kelvin sign) match "s" and "k" in any case; so does "ı" or "İ" match "i".
    return word.lower().translate(_LOOKALIKES)


_LOOKALIKES = str.maketrans({"ſ": "s", "ı": "i", "\u0307": ""})
