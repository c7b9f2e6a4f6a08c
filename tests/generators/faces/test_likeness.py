"""Whose face a swap shows, through the real FaceAnalysis over small networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from generators.faces.analysis import Analysis
from generators.faces.likeness import Judge, judge
from tests.generators.faces.onnx_packs import canvas, drawn_face, frontal, pack


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("frontal"), detector=frontal)


def test_it_says_whose_face_it_is(aligned: Path) -> None:
    judging, base, donor = Judge(aligned, "cpu"), drawn_face(1), drawn_face(2)
    likeness = judging.likeness(base, donor, drawn_face(2))
    assert isinstance(likeness, dict)
    assert likeness["similarity_to_donor"] > 0.99 > 0.3 > likeness["similarity_to_base"]
    assert likeness["similarity_base_donor"] == pytest.approx(likeness["similarity_to_base"], abs=0.01)
    said = judging.likeness(base, donor, drawn_face(1))
    assert str(said).startswith("the swapped face is not nearer to the donor: similarity")


def test_it_sees_a_face_that_is_gone(tmp_path: Path) -> None:
    analysis = Analysis(pack(tmp_path), threads=1)
    (face,) = analysis.faces(canvas((9, 9, 5, 255)))
    for picture in (canvas(), canvas((17, 17, 1, 255))):  # none, and one elsewhere
        assert judge(analysis, face, face, picture) == "no face found where the base's was, once swapped"


def test_a_base_or_a_donor_without_a_face_is_named(tmp_path: Path) -> None:
    judging, face, nobody = Judge(pack(tmp_path), "cpu"), canvas((9, 9, 5, 255)), canvas()
    assert judging.likeness(nobody, face, face) == "no face found in the base"
    assert judging.likeness(face, nobody, face) == "no face found in the donor"
