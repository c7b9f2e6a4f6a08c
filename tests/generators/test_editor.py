"""The face editors around their networks: what is planned, and what becomes of a picture that a generator returns.

The generator is replaced by a known one: the face itself with a change painted in. Everything else is real.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import fitted_parser
import numpy as np
import pytest
import torch
from drawn_faces import PLAIN, Face, face, facts

from generators import ffhq_align
from generators.base import Forged, Job, Params, Rejection
from generators.editor import Edit
from generators.hfgi.method import HFGI
from generators.styleclip.method import StyleCLIP
from mmtt_build import config, masks, parts
from mmtt_build.catalogue import catalogue
from mmtt_build.errors import ConfigError
from mmtt_build.masks import Image
from mmtt_build.portraits import draw
from mmtt_build.weights import Weights

torch.set_num_threads(1)
KNOWN = fitted_parser.SEEDS[0]
MOUTH = ("mouth", "u_lip", "l_lip")


class Painted:
    """In place of the networks: the face, larger and a little warmer as inversions are, and a mouth painted over."""

    def __init__(self, colour: tuple[int, int, int] | None = (120, 20, 90), reason: str = "") -> None:
        self.colour, self.reason = colour, reason
        self.seen: list[Image] = []

    def edit(self, faces: Sequence[Image], params: Sequence[Params]) -> list[Edit | str]:
        self.seen += faces
        return [self.reason or self._one(picture) for picture in faces]

    def _one(self, picture: Image) -> Edit:
        inversion = cv2.resize(picture, (1024, 1024), interpolation=cv2.INTER_CUBIC)
        inversion = np.clip(inversion.astype(np.int16) + np.array([4, 1, -3]), 0, 255).astype(np.uint8)
        edited = inversion.copy()
        if self.colour:
            cv2.ellipse(edited, (512, 760), (120, 50), 0, 0, 360, self.colour, -1, cv2.LINE_AA)
        return Edit(inversion, edited, {"painted": True})


@pytest.fixture(scope="module")
def weights(bisenet: Path) -> Weights:
    return Weights((bisenet,))


class Smile(HFGI):
    """An editor whose networks are the painted ones."""

    painted = Painted()

    def checkpoints(self, params: Params) -> Sequence[str]:
        return []

    def networks(self, device: str, weights: Weights) -> Painted:
        return self.painted


def editor(weights: Weights, painted: Painted | None = None) -> Smile:
    method = Smile(Smile.Options(attributes=("smile",)))
    method.painted = painted or Painted()
    method.prepare("cpu", weights)
    return method


def job(of: Face, **changes: Any) -> Job:
    params = {"attribute": "smile", "parts": list(MOUTH), "strength": 2.0, "direction": "smile", "corners": None}
    return dataclasses.replace(Job("j", 1, params, of.image, of.labels), **changes)


def test_what_the_generator_changed_comes_into_the_photo_and_nothing_else(weights: Weights) -> None:
    of = face(KNOWN)
    (made,) = editor(weights).forge([job(of)])
    assert isinstance(made, Forged)
    change = masks.check(of.image, made.image, made.mask)
    mouth = parts.select(of.labels, MOUTH)
    assert (made.mask & mouth).sum() > 0.95 * mouth.sum()
    assert not (made.mask & parts.select(of.labels, ("l_eye", "r_eye", "nose"))).any()
    assert change.area < 0.2
    # Inside, what was painted, in the photo's colours: the inversion's warmth is taken off.
    x, y = 256, 380
    assert made.mask[y, x]
    assert np.abs(made.image[y, x].astype(int) - (116, 19, 93)).max() < 14
    # At the rim of the mask the photo goes over into it: no step where the generator changed nothing.
    depth = cv2.distanceTransform(made.mask.view(np.uint8), cv2.DIST_L2, 5)
    rim = made.mask & (depth <= 2)
    assert np.abs(made.image[rim].astype(int) - of.image[rim]).mean() < 9
    assert made.facts["painted"] is True
    assert made.facts["checkpoints"]["bisenet"]["licence"]
    assert made.facts["edit_share"] > 0.3
    json.dumps(made.facts)


def test_an_edit_that_does_nothing_is_rejected(weights: Weights) -> None:
    (made,) = editor(weights, Painted(colour=None)).forge([job(face(KNOWN))])
    assert isinstance(made, Rejection)
    assert made.reason.startswith("no-op: the edit changes")


def test_a_face_that_the_networks_cannot_edit_is_rejected_and_the_others_are_made(weights: Weights) -> None:
    (made,) = editor(weights, Painted(reason="no channel reaches beta 0.2")).forge([job(face(KNOWN))])
    assert made == Rejection("no channel reaches beta 0.2")
    outside = (np.array(((-900, -900), (-900, -700), (-700, -700), (-700, -900)))).tolist()
    bad = job(face(KNOWN))
    bad = dataclasses.replace(bad, params={**bad.params, "corners": outside})
    first, second = editor(weights).forge([bad, job(face(KNOWN))])
    assert first == Rejection("the face lies outside the photo")
    assert isinstance(second, Forged)


def test_after_an_earlier_forgery_the_parts_are_looked_for_in_the_picture(weights: Weights) -> None:
    """A map that says nothing of the picture: of no use for a pristine one, not looked at after a forgery."""
    of, method = face(KNOWN), editor(weights)
    wrong = np.roll(of.labels, -150, axis=0)
    (pristine,) = method.forge([job(of, labels=wrong)])
    (sequential,) = method.forge([job(of, labels=wrong, altered=True)])
    assert isinstance(sequential, Forged)
    mouth = parts.select(of.labels, MOUTH)
    assert (sequential.mask & mouth).sum() > 0.6 * mouth.sum()  # what the fitted parser finds of it
    strayed = parts.select(wrong, MOUTH) & ~cv2.dilate(mouth.view(np.uint8), np.ones((41, 41))).view(np.bool_)
    assert strayed.any()
    assert not (sequential.mask & strayed).any()
    assert isinstance(pristine, Rejection) or (pristine.mask & strayed).any()


def test_a_face_that_is_not_aligned_is_cut_out_and_put_back(weights: Weights) -> None:
    """The known face smaller and turned in a photo: the networks see it upright, the change lies where the mouth is."""
    of = face(KNOWN)
    matrix = cv2.getRotationMatrix2D((256, 256), 12, 0.6)
    photo = cv2.warpAffine(of.image, matrix, (512, 512), borderMode=cv2.BORDER_REFLECT)
    labels = cv2.warpAffine(of.labels, matrix, (512, 512), flags=cv2.INTER_NEAREST)
    there, painted = facts(photo, labels), Painted()
    method = editor(weights, painted)
    params = method.plan(np.random.default_rng(0), there, None)
    assert params is not None
    assert params["corners"] is not None
    (made,) = method.forge([job(Face(photo, labels, there), params=params)])
    assert isinstance(made, Forged)
    masks.check(photo, made.image, made.mask)
    (seen,) = painted.seen
    assert seen.shape == (256, 256, 3)
    difference = np.abs(seen.astype(int) - cv2.resize(of.image, (256, 256), interpolation=cv2.INTER_AREA))
    assert np.median(difference[64:224, 64:192]) < 12
    mouth = parts.select(labels, MOUTH)
    assert (made.mask & mouth).sum() > 0.9 * mouth.sum()


# --- plan -------------------------------------------------------------------------------------------------------


def test_plans_name_attribute_strength_and_checkpoints() -> None:
    method = StyleCLIP()
    rng = np.random.default_rng(0)
    plans = [method.plan(rng, face(PLAIN).facts, None) for _ in range(200)]
    assert all(plan is not None and plan["corners"] is None for plan in plans)
    needed = {tuple(method.weights(plan)) for plan in plans if plan}
    assert ("e4e", "styleclip-angry", "bisenet") in needed
    assert ("e4e", "styleclip-directions", "clip-vit-b32", "bisenet") in needed
    assert not any("trump" in name for names in needed for name in names)
    assert all("styleclip" in catalogue()[name].methods for names in needed for name in names)
    keys = {method.batch_key(plan) for plan in plans if plan}
    assert {"", "angry", "surprised"} <= keys
    names = HFGI().weights({"direction": "age"})
    assert names == ["hfgi", "hfgi-directions", "bisenet"]
    assert all("hfgi" in catalogue()[name].methods for name in names)


def test_a_face_without_points_is_not_planned() -> None:
    assert HFGI().plan(np.random.default_rng(0), dataclasses.replace(face(PLAIN).facts, points=()), None) is None


def test_attributes_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[styleclip.beard]\nparts = ["skin"]\ntext = ["face", "face with a beard"]\n'
        'strength = [[3, 4]]\nbeta = [0.1, 0.2]\nsource = "mine"\n'
    )
    method = StyleCLIP(StyleCLIP.Options(table=file))
    plan = method.plan(np.random.default_rng(0), face(PLAIN).facts, None)
    assert plan is not None
    assert plan["attribute"] == "beard"
    with pytest.raises(ConfigError, match="has no attribute of hfgi"):
        HFGI(HFGI.Options(table=file))
    with pytest.raises(ConfigError, match="styleclip has no attribute 'smilling'"):
        StyleCLIP(StyleCLIP.Options(attributes=("smilling",)))


@pytest.mark.parametrize(
    ("options", "said"), [({"precision": "half"}, "precision: is 'half'"), ({"batch_size": 0}, "batch_size: is 0")]
)
def test_options_that_make_no_sense_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        HFGI.Options(**options)


def test_a_recipe_names_attributes_as_a_list(tmp_path: Path) -> None:
    recipe = tmp_path / "mmtt.toml"
    recipe.write_text('[methods.hfgi]\nattributes = ["smile", "lip", "eyes"]\n')
    assert config.options(recipe, "hfgi", HFGI.Options).attributes == ("smile", "lip", "eyes")
    recipe.write_text('[methods.hfgi]\nattributes = "smile"\n')
    with pytest.raises(ConfigError, match="attributes: is 'smile', needs a list") as caught:
        config.options(recipe, "hfgi", HFGI.Options)
    assert caught.value.remedy == 'e.g. attributes = ["text"]'


def test_the_drawn_portrait_is_where_the_encoders_want_it() -> None:
    assert ffhq_align.is_aligned(ffhq_align.quad(ffhq_align.anchors5(face(KNOWN).facts.points)), (512, 512))
    assert draw(KNOWN, 512).image.shape == (512, 512, 3)
