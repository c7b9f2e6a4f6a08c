"""Mentions, ticks and claims held against what the mask covers: a row that passes and one that fails, per rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mmtt_build import images
from mmtt_build.config import Qc
from mmtt_build.parts import INDEX, LABELS, label_vector
from mmtt_build.portraits import draw
from mmtt_build.records import Annotation, Forged
from mmtt_build.sources.base import face_points
from qc import base, regions
from qc.base import Beside, Finding

ROW = Annotation("a-1", "warp-0", "described", "", "en", None, "ann-03", 75.0, "human")
VIEWER = Qc(sides="viewer")


def cover(other: float | None = 0.0, **shares: float | None) -> regions.Cover:
    """A cover by slots such as eye_left; the others have one share, and a whole part that of its larger side."""
    slots = dict.fromkeys(regions.SLOTS, other)
    slots |= {(label, side): share for name, share in shares.items() for label, _, side in [name.partition("_")]}
    for label in LABELS:
        known = [share for side in regions.SIDES if (share := slots[label, side]) is not None]
        slots[label, ""] = max(known, default=None)
    return tuple(slots.values())


LEFT_EYE = cover(eye_left=0.84, eyebrow_left=0.3, skin_left=0.2, cheek_left=0.1, nose_left=0.01)


def judged(
    description: str | None,
    of: regions.Cover | None = LEFT_EYE,
    thresholds: Qc | None = None,
    root: Path | None = None,
    forgery: Forged | None = None,
    **changes: object,
) -> dict[str, Finding]:
    row = replace(ROW, description=description, **changes)  # type: ignore[arg-type]
    shown = replace(forgery or Forged("warp-0", "ok"), cover=of)
    found = base.audit(row, thresholds or Qc(), None, Beside(shown), root)
    return {finding.rule: finding for finding in found}


def message(rule: str, description: str | None, **given: object) -> str:
    found = judged(description, **given)  # type: ignore[arg-type]
    return found[rule].message if rule in found else ""


@pytest.mark.parametrize(
    "text",
    [
        "The left eye is blurred.",
        "The eyes do not match.",
        "The left eyebrow is pasted on, and the skin below the left eye is too smooth.",
        "The left cheek next to the ear is blurred.",
        "The left eye is larger than the right one.",
        "The left eye is much larger than the right eye.",
        "The left eye is not aligned with the right eye.",
        "The left eye blends badly into the nose.",
        "The area between the left eye and the nose is smeared.",
        "There is a seam around the left eye.",
        "The skin at the left corner of the mouth is too smooth.",
        "The left eye is blurred, the nose looks natural.",
        "The picture is blurred.",
        "",
    ],
)
def test_what_the_mask_touches_may_be_called_manipulated(text: str) -> None:
    assert "mention.out-of-mask" not in judged(text)


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("The right eye is blurred.", ["right eye"],
         "'right eye' at 4: the mask covers 0.0 % of the right eye, and 84 % of the left one: "
         "are left and right confused?"),
        ("The nose is too wide.", ["nose"], "'nose' at 4: the mask covers 1.0 % of the nose"),
        ("Both eyes are blurred.", ["Both eyes"], "'Both eyes' at 0: the mask covers 0.0 % of the right eye"),
        ("There is a seam around the right eye.", ["right eye"], "'right eye' at 27"),
        ("The left eye and the lips are too dark. The lips shine.", ["lips", "lips"], "'lips' at 21, 'lips' at 44"),
        ("The left ear and the chin are blurred.", ["left ear", "chin"], "'left ear' at 4: the mask covers 0.0 %"),
        ("The mask-like nose and the left eye are blurred.", ["nose"], "'nose' at 14"),
    ],
)  # fmt: skip
def test_a_mention_out_of_the_mask(text: str, words: list[str], said: str) -> None:
    finding = judged(text)["mention.out-of-mask"]
    assert finding.severity == "reject"
    assert finding.message.startswith(said)
    assert [text[start:end] for start, end in finding.spans] == words


def test_a_mention_out_of_the_mask_in_chinese() -> None:
    assert "mention.out-of-mask" not in judged("左眼模糊。", language="zh")
    assert "mention.out-of-mask" not in judged("鼻子旁边的皮肤太光滑。", language="zh")
    text = "左眼模糊，右眼太大。"
    (span,) = judged(text, language="zh")["mention.out-of-mask"].spans
    assert text[slice(*span)] == "右眼"


def test_the_viewers_sides() -> None:
    assert "mention.out-of-mask" not in judged("The right eye is blurred.", thresholds=VIEWER)
    said = message("mention.out-of-mask", "The left eye is blurred.", thresholds=VIEWER)
    assert "0.0 % of the viewer's left eye, and 84 % of the right one" in said


def test_the_least_cover_is_the_recipes() -> None:
    text = "The nose is too wide."
    assert "mention.out-of-mask" not in judged(text, thresholds=Qc(min_cover=0.01))
    assert "mention.out-of-mask" in judged(text, thresholds=Qc(min_cover=0.011))


def test_without_a_measurement_nothing_is_said() -> None:
    for text in ("The chin is blurred.", "The left eye is blurred, the nose looks natural."):
        for of in (None, cover(None)):
            assert judged(text, of, labels=tuple(label_vector(["chin"]))).keys() <= {"labels.text"}
    row = replace(ROW, description="The chin is blurred.")
    assert base.audit(row, Qc()) == []


def test_side_of_a_part_without_sides() -> None:
    corner = cover(mouth_left=0.5)
    assert "mention.out-of-mask" not in judged("The left corner of the mouth is smeared.", corner)
    assert "0.0 % of the right mouth" in message(
        "mention.out-of-mask", "The right corner of the mouth is smeared.", of=corner
    )
    assert "mention.out-of-mask" not in judged("Both lips are smeared.", cover(lip_left=0.5))


def test_a_part_that_the_picture_does_not_show() -> None:
    hidden = cover(0.5, ear_=None, ear_left=None, ear_right=None)
    assert message("mention.no-such-part", "The ears are blurred.", of=hidden) == (
        "'ears' at 4: the picture shows no ear"
    )
    one = cover(0.5, ear_right=None)
    assert "no right ear" in message("mention.no-such-part", "The right ear is blurred.", of=one)
    assert "mention.no-such-part" not in judged("The ear is blurred.", one)
    assert "mention.no-such-part" not in judged("There are no ears.", hidden)
    ticked = judged("Blurred.", hidden, labels=tuple(label_vector(["ear"])))
    assert ticked["mention.no-such-part"].message == "ticked ear: the picture shows none"


def test_landmarks_draw_neither_hair_nor_ears() -> None:
    none = {f"{label}_{side}": None for label in ("ear", "hair") for side in regions.SIDES}
    assert "mention.no-such-part" not in judged("The hair and the ears are blurred.", cover(0.5, **none))


def test_an_authentic_area() -> None:
    text = "The left eye is blurred, the nose looks natural."
    finding = judged(text)["mention.authentic"]
    assert finding.message == "'nose' at 29: the nose was not manipulated, and needs no words"
    assert [text[start:end] for start, end in finding.spans] == ["nose"]
    assert "mention.authentic" in judged("The left eye is blurred, unlike the mouth.")
    assert "mention.authentic" not in judged("The left eye looks natural.")  # of what was forged
    assert "mention.authentic" not in judged("The left eye is blurred.")


@pytest.mark.parametrize("answer", ["nothing-visible", "broken-pair"])
def test_nothing_is_visible_and_yet_described(answer: str) -> None:
    assert "describes 'eye' at 9" in message("answer.nothing-visible", "The left eye is blurred.", answer=answer)
    ticked = judged(None, answer=answer, labels=tuple(label_vector(["eye"])), sides=("eye.left",))
    assert ticked["answer.nothing-visible"].message == f"answered {answer!r}, and ticked left eye"
    assert "answer.nothing-visible" not in judged(None, answer=answer, labels=(0,) * 21)
    assert "answer.nothing-visible" not in judged("There is no flaw in the eyes.", answer=answer)
    assert "answer.nothing-visible" not in judged("The left eye is blurred.")


def test_ticks_out_of_the_mask() -> None:
    def said(labels: list[str], *sides: str, thresholds: Qc | None = None) -> str:
        vector = tuple(label_vector(labels))
        return message("labels.out-of-mask", "Blurred.", labels=vector, sides=sides, thresholds=thresholds)

    assert said(["eye", "skin"]) == said(["eye"], "eye.left") == ""
    assert said(["eye"], "eye.left", thresholds=VIEWER) == ""  # the page's buttons are the subject's
    assert said(["eye"], "eye.left", "eye.right") == (
        "ticked right eye: the mask covers 0.0 % of it, and 84 % of the left one: are left and right confused?"
    )
    assert said(["eye", "nose"]) == "ticked nose: the mask covers 1.0 % of it"


def test_ticks_and_text() -> None:
    text = "The left eye is blurred, the nose looks natural."
    assert message("labels.text", text, labels=tuple(label_vector(["eye", "nose"]))) == ""
    assert message("labels.text", text, labels=tuple(label_vector(["lip"]))) == (
        "ticked and not named: lip; called manipulated and not ticked: eye"
    )
    assert message("labels.text", text, labels=None) == ""
    assert message("labels.text", "It is blurred.", labels=tuple(label_vector(["lip"]))) == ""  # text.no-part says so
    assert judged(text, labels=tuple(label_vector(["lip"])))["labels.text"].severity == "info"


def test_controls_are_judged_by_the_mask_that_was_shown() -> None:
    assert "mention.out-of-mask" in judged("The nose is too wide.", kind="control")


def test_a_long_text_is_judged_with_bounded_evidence() -> None:
    finding = judged("The nose is too wide. " * 10_000)["mention.out-of-mask"]
    assert len(finding.spans) <= 100
    assert len(finding.message) < 1000


@pytest.mark.parametrize(
    "piece",
    ["between the nose and ", "one left eye is larger than the right ", "The eyes are uneven. ", "左眼比右眼大。",
     "nose\n", "the the the left left ", "eyes aaaa not ", "<b>nose</b> \u202e", "\ud83d nose {} %s "],
)  # fmt: skip
def test_a_long_text_of_anything_is_judged(tmp_path: Path, piece: str) -> None:
    text = piece * (50_000 // len(piece))
    for language in ("en", "zh"):
        for finding in judged(text, language=language, root=tmp_path).values():
            assert all(0 <= start < end <= len(text) for start, end in finding.spans)
            assert len(finding.message) < 5000


# --- claims that hold for the pristine as well ------------------------------------------------------------------------

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def face() -> Pair:
    portrait = draw(21, 512)
    return portrait.image, portrait.labels


def stored(root: Path, face: Pair, forged: NDArray[np.uint8], labels: NDArray[np.uint8] | None = None) -> Forged:
    """Files of a forgery, with a part map of the result if there is one."""
    grey = {"base_parts": face[1]} | ({} if labels is None else {"parts": labels})
    for name, image in {"base": face[0], "image": forged}.items():
        (root / f"{name}.png").write_bytes(images.encode_rgb(image))
    for name, image in grey.items():
        (root / f"{name}.png").write_bytes(images.encode_grey(image))
    paths = {name: f"{name}.png" for name in ("base", "image", *grey)}
    return Forged("warp-0", "ok", points=tuple(face_points(face[1])), **paths)  # type: ignore[arg-type]


def enlarged(face: Pair) -> Pair:
    """The face with a left eye that is half as large again."""
    image, labels = (array.copy() for array in face)
    x, y, width, height = cv2.boundingRect((labels == INDEX["l_eye"]).view(np.uint8))
    middle = (x + width // 2, y + height // 2)
    taken = np.s_[middle[1] - 24 : middle[1] + 24, middle[0] - 32 : middle[0] + 32]
    placed = np.s_[middle[1] - 36 : middle[1] + 36, middle[0] - 48 : middle[0] + 48]
    image[placed] = cv2.resize(face[0][taken], (96, 72), interpolation=cv2.INTER_CUBIC)
    labels[placed] = cv2.resize(face[1][taken], (96, 72), interpolation=cv2.INTER_NEAREST)
    return image, labels


@pytest.mark.parametrize(
    "text",
    [
        "The eyes are asymmetric.",
        "The left eye is larger than the right one.",
        "The mouth is blurred. The eyes are of different sizes.",
        "The eyes are not level.",
        "Her eyes differ in size.",
    ],
)
def test_a_claim_that_holds_for_the_pristine(tmp_path: Path, face: Pair, text: str) -> None:
    same = stored(tmp_path, face, face[0])
    said = message("claim.pristine", text, of=None, root=tmp_path, forgery=same)
    assert "the eyes differ by" in said
    assert "in the pristine, too, they differ by" in said
    assert judged(text, None, root=tmp_path, forgery=same)["claim.pristine"].severity == "review"
    forged, labels = enlarged(face)
    with_map = stored(tmp_path, face, forged, labels)
    assert message("claim.pristine", text, of=None, root=tmp_path, forgery=with_map) == ""
    without_map = replace(with_map, parts=None)
    assert message("claim.pristine", text, of=None, root=tmp_path, forgery=without_map) == ""


def test_both_numbers_are_told(tmp_path: Path, face: Pair) -> None:
    said = message(
        "claim.pristine", "The eyes are asymmetric.", of=None, root=tmp_path, forgery=stored(tmp_path, face, face[0])
    )
    assert said.startswith("'asymmetric' at 13: the eyes differ by ")
    assert said.count(" in size, ") == said.count(" in height, ") == said.count(" grey levels") == 2


@pytest.mark.parametrize(
    "text",
    ["The left eye is blurred.", "The nose is asymmetric.", "The eyes are not asymmetric.",
     "The skin of the left cheek is uneven.", "The eyes are symmetric."],
)  # fmt: skip
def test_what_claims_no_asymmetry_of_a_pair(tmp_path: Path, face: Pair, text: str) -> None:
    same = stored(tmp_path, face, face[0])
    assert "claim.pristine" not in judged(text, None, root=tmp_path, forgery=same)


def test_claims_in_chinese(tmp_path: Path, face: Pair) -> None:
    same = stored(tmp_path, face, face[0])
    assert "claim.pristine" in judged("两只眼睛大小不一。", None, root=tmp_path, forgery=same, language="zh")
    assert "claim.pristine" not in judged("左眼模糊。", None, root=tmp_path, forgery=same, language="zh")


def test_claims_on_a_control_or_without_files_are_not_measured(tmp_path: Path, face: Pair) -> None:
    same = stored(tmp_path, face, face[0])
    text = "The eyes are asymmetric."
    assert "claim.pristine" not in judged(text, None, root=tmp_path, forgery=same, kind="control")
    assert "claim.pristine" not in judged(text, None, forgery=same)
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    assert "claim.pristine" not in judged(text, None, root=tmp_path, forgery=same)
