from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from drawn_faces import LAUGHING, LONG_HAIR, PLAIN, face

from generators import editing
from generators.base import Forged, Rejection
from generators.components import find_face
from generators.editing import Frame
from generators.ffhq_align import AlignmentError
from generators.regions import RegionError
from generators.warp import method as warp
from mmtt_build import masks, parts
from mmtt_build.masks import Image, Mask
from mmtt_build.parts import INDEX, LabelMap

SURPRISED = ("l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip")
GAIN, SHIFT = np.float32([1.08, 0.98, 0.9]), np.float32([9, 2, -8])


def inverted(image: Image) -> Image:
    """What a generator might make of a photo: other colours, less texture, everything a fraction of a pixel off."""
    y, x = np.mgrid[0:512, 0:512].astype(np.float32)
    wave = 0.8 * np.sin(x / 60) * np.cos(y / 45)
    moved = cv2.remap(image, x + wave, y - wave, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    soft = cv2.GaussianBlur(moved.astype(np.float32), (0, 0), 1.0)
    return np.clip(soft * GAIN + SHIFT, 0, 255).astype(np.uint8)


def surprised(inversion: Image, labels: LabelMap) -> tuple[Image, LabelMap]:
    """Brows up and eyes wide by the displacement of `warp`, and the whole picture a little redder, as edits are."""
    field = warp.displacement(find_face(labels), labels, {"raised_brows": 0.12, "larger_eyes": 0.2, "fuller_lips": 0.3})
    assert field is not None
    edited = warp.resample(inversion, field, warp.moved(field)).astype(np.float32) + np.float32([4, 0, -2])
    y, x = np.mgrid[0:512, 0:512].astype(np.float32)
    after = cv2.remap(labels, x + field[..., 0], y + field[..., 1], cv2.INTER_NEAREST)
    return np.clip(edited, 0, 255).astype(np.uint8), after


def made(seed: int) -> tuple[Forged, Image, Image]:
    """A forgery, the inversion and the edited picture that it was made of."""
    base, labels, _ = face(seed)
    inversion = inverted(base)
    edited, after = surprised(inversion, labels)
    result = editing.compose(base, inversion, edited, labels, after, SURPRISED, np.random.default_rng(1))
    assert isinstance(result, Forged)
    return result, inversion, edited


def depth(mask: Mask) -> np.ndarray:
    return cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, 5)


# --- region -----------------------------------------------------------------------------------------------------


def test_the_mask_is_the_union_of_the_parts_before_and_after_with_a_margin() -> None:
    before = face(PLAIN).labels
    _, after = surprised(face(PLAIN).image, before)
    mask = editing.region(before, after, SURPRISED).mask
    both = parts.select(before, SURPRISED) | parts.select(after, SURPRISED)
    assert mask[both].all()
    assert np.count_nonzero(parts.select(after, SURPRISED) & ~parts.select(before, SURPRISED)) > 300, "parts do move"
    outside = cv2.distanceTransform((~both).view(np.uint8), cv2.DIST_L2, 5)[mask]
    assert 7 <= outside.max() <= editing.GROW_PX + 6
    assert not (mask & parts.select(before, ("nose",))).any()
    assert not (mask & parts.select(after, ("nose",))).any()


def test_a_part_that_only_one_of_the_pictures_shows_is_enough() -> None:
    shut = face(PLAIN).labels
    agape = shut.copy()
    cv2.ellipse(agape, (256, 370), (40, 24), 0, 0, 360, INDEX["mouth"], -1)
    assert not parts.select(shut, ("mouth",)).any()
    mask = editing.region(shut, agape, ("mouth",)).mask
    opened = parts.select(agape, ("mouth",))
    lips = parts.select(shut, ("u_lip", "l_lip")) | parts.select(agape, ("u_lip", "l_lip"))
    assert mask[opened & ~lips].all()
    np.testing.assert_array_equal(mask, editing.region(agape, shut, ("mouth",)).mask)
    with pytest.raises(RegionError, match="neither picture shows mouth"):
        editing.region(shut, shut, ("mouth",))


def test_the_mask_stays_within_what_the_generator_shows() -> None:
    labels = face(LONG_HAIR).labels
    within = np.zeros((512, 512), bool)
    within[:, 100:400] = True
    whole, cut = (editing.region(labels, labels, ("hair",), of).mask for of in (None, within))
    np.testing.assert_array_equal(cut, whole & within)
    with pytest.raises(RegionError, match="empty mask"):
        editing.region(labels, labels, ("hair",), np.zeros_like(within))


# --- colours ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [PLAIN, LAUGHING, LONG_HAIR])
def test_the_drift_of_an_inversion_is_found(seed: int) -> None:
    base = face(seed).image
    inversion = inverted(base)
    back = editing.tone(base, inversion).apply(inversion, np.s_[:, :])
    flat = np.abs(cv2.Laplacian(cv2.GaussianBlur(base, (0, 0), 2), cv2.CV_32F)).max(axis=2) < 1
    before, after = (np.abs(picture.astype(np.float32) - base)[flat].mean() for picture in (inversion, back))
    assert before > 7
    assert after < 0.25 * before


def test_a_picture_of_one_colour_tells_no_gain() -> None:
    grey, other = np.full((512, 512, 3), 90, np.uint8), np.full((512, 512, 3), 100, np.uint8)
    like = editing.tone(grey, other)
    assert like.gain == pytest.approx([1, 1, 1])
    np.testing.assert_allclose(like.apply(other, np.s_[:, :]), 90, atol=0.5)


def test_what_the_generator_does_not_show_says_nothing_about_colour() -> None:
    base = face(PLAIN).image
    inversion = inverted(base)
    within = np.zeros((512, 512), bool)
    within[64:448, 64:448] = True
    spoilt = np.where(within[..., None], inversion, 255 - base).astype(np.uint8)
    clean, told = (editing.tone(base, of, within) for of in (inversion, spoilt))
    np.testing.assert_allclose(told.gain, clean.gain, atol=0.02)


# --- the forgery ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [PLAIN, LAUGHING, LONG_HAIR])
def test_the_contract_holds_and_the_edit_shows(seed: int) -> None:
    result, inversion, edited = made(seed)
    base = face(seed).image
    change = masks.check(base, result.image, result.mask)
    assert change.mean_change > 4
    assert json.loads(json.dumps(result.facts)) == result.facts
    assert result.facts["edit_share"] > 0.3
    # What changed is what the edit changed, not what inversion changed.
    wanted = (edited.astype(np.float32) - inversion) / GAIN
    got = result.image.astype(np.float32) - base
    inner = depth(result.mask) > 8
    assert np.corrcoef(wanted[inner].ravel(), got[inner].ravel())[0, 1] > 0.85


@pytest.mark.parametrize("seed", [PLAIN, LAUGHING])
def test_the_seam_is_not_seen(seed: int) -> None:
    """Along the rim the forgery is the photo, though the generator's picture is 10 levels off there."""
    result, _, edited = made(seed)
    base = face(seed).image.astype(np.float32)
    rim = (depth(result.mask) > 0) & (depth(result.mask) <= 1.5)
    assert np.abs(edited - base)[rim].mean() > 7
    assert np.abs(result.image - base)[rim].mean() < 2
    # Nor is there a step in light a few pixels further in: the mean colour is the photo's all the way.
    still = result.mask & (depth(result.mask) <= 4)
    assert np.abs((result.image - base)[still].mean(axis=0)).max() < 3


def test_what_the_edit_leaves_alone_keeps_the_photos_pores() -> None:
    base, labels, _ = face(PLAIN)
    grain = np.random.default_rng(0).normal(0, 4, base.shape[:2])[..., None]
    base = np.clip(base + grain, 0, 255).astype(np.uint8)
    inversion = cv2.GaussianBlur(inverted(base), (0, 0), 1.5)
    edited = inversion.copy()
    brows = editing.region(labels, labels, ("l_brow", "r_brow")).mask
    edited[brows] = edited[brows] // 2
    names = ("skin", *SURPRISED, "nose")
    result = editing.compose(base, inversion, edited, labels, labels, names, np.random.default_rng(1))
    assert isinstance(result, Forged)
    skin = parts.select(labels, ("skin",))
    calm = skin & (cv2.distanceTransform((~brows).view(np.uint8), cv2.DIST_L2, 5) > 16) & (depth(skin) > 6)
    np.testing.assert_allclose(result.image[calm], base[calm], atol=2)
    # Where it is painted anew, it is as grainy as the photo and not as smooth as the generator's picture.
    fresh = brows & skin & (depth(brows) > 4)
    rough, smooth, photo = (
        cv2.Laplacian(p, cv2.CV_32F)[fresh].std() for p in (result.image, edited, (base // 2).astype(np.uint8))
    )
    assert smooth < 0.5 * rough
    assert 0.5 * photo < rough < 2.5 * photo


def test_an_edit_that_does_nothing_is_rejected_whatever_the_inversion_does() -> None:
    base, labels, _ = face(PLAIN)
    inversion = (inverted(base) * 0.85 + 18).astype(np.uint8)  # so that nothing is cut off at black or white
    shifted = (inversion.astype(int) + np.array([14, -9, 5])).astype(np.uint8)
    for edited in (inversion, shifted):
        result = editing.compose(base, inversion, edited, labels, labels, SURPRISED, np.random.default_rng(1))
        assert isinstance(result, Rejection)
        assert result.reason.startswith("no-op: the edit changes 0.0% of the mask visibly")


def test_parts_that_are_nowhere_are_a_reason() -> None:
    base, labels, _ = face(PLAIN)
    result = editing.compose(base, base, base, labels, labels, ("hat",), np.random.default_rng(1))
    assert isinstance(result, Rejection)
    assert "neither picture shows hat" in result.reason


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, second = made(PLAIN)[0], made(PLAIN)[0]
    assert first.image.tobytes() == second.image.tobytes()
    assert first.mask.tobytes() == second.mask.tobytes()


def test_noise_of_untrained_weights_keeps_the_contract() -> None:
    base, labels, _ = face(LONG_HAIR)
    rng = np.random.default_rng(0)
    inversion, edited = rng.integers(0, 256, (2, 512, 512, 3), np.uint8)
    for names in (SURPRISED, ("hair",), ("skin", *SURPRISED, "nose")):
        result = editing.compose(base, inversion, edited, labels, labels, names, np.random.default_rng(1))
        assert isinstance(result, Forged)
        masks.check(base, result.image, result.mask)


def test_hair_that_reaches_the_frame_changes_up_to_the_frame() -> None:
    base, labels, _ = face(LONG_HAIR)
    inversion = inverted(base)
    hair = parts.select(labels, ("hair",))
    assert hair[-1].any() or hair[0].any()
    edited = inversion.copy()
    edited[hair] = 255 - edited[hair]
    result = editing.compose(base, inversion, edited, labels, labels, ("hair",), np.random.default_rng(1))
    assert isinstance(result, Forged)
    edge = np.zeros_like(hair)
    edge[[0, -1]] = hair[[0, -1]]
    edge &= depth(np.pad(hair, 20, "edge"))[20:-20, 20:-20] > 12
    assert edge.any()
    assert np.abs(result.image.astype(int) - base)[edge].mean() > 30


# --- faces that are not aligned ---------------------------------------------------------------------------------


def placed(seed: int, scale: float, degrees: float) -> tuple[Image, LabelMap, tuple[float, ...]]:
    """A portrait made smaller and turned, in a photo of 512 pixels."""
    base, labels, facts = face(seed)
    matrix = cv2.getRotationMatrix2D((255.5, 255.5), degrees, scale)
    photo = cv2.warpAffine(base, matrix, (512, 512), flags=cv2.INTER_AREA, borderValue=(90, 110, 130))
    there = cv2.warpAffine(labels, matrix, (512, 512), flags=cv2.INTER_NEAREST)
    points = np.asarray(facts.points).reshape(5, 2) @ matrix[:, :2].T + matrix[:, 2]
    return photo, there, tuple(points.ravel().tolist())


def test_an_aligned_photo_is_only_resized() -> None:
    base, labels, facts = face(PLAIN)
    frame = Frame.of(facts.points)
    assert frame.corners is None
    assert frame.cut_out(base).shape == (256, 256, 3)
    twice = base.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(frame.back(twice), base)
    np.testing.assert_array_equal(frame.back(base), base)
    np.testing.assert_array_equal(frame.labels_back(labels), labels)
    assert frame.inside().all()


@pytest.mark.parametrize(("scale", "degrees"), [(0.7, 12.0), (0.5, -25.0)])
def test_a_face_in_a_photo_is_edited_where_it_is(scale: float, degrees: float) -> None:
    photo, labels, points = placed(PLAIN, scale, degrees)
    frame = Frame.of(points)
    assert frame.corners is not None
    upright = frame.cut_out(photo, 512)
    inversion = inverted(upright)
    aligned_labels = face(PLAIN).labels  # the cut-out is the portrait again
    edited, after = surprised(inversion, aligned_labels)
    result = editing.compose(
        photo, frame.back(inversion), frame.back(edited), labels, frame.labels_back(after), SURPRISED,
        np.random.default_rng(1), frame.inside(),
    )  # fmt: skip
    assert isinstance(result, Forged)
    masks.check(photo, result.image, result.mask)
    assert result.mask[parts.select(labels, SURPRISED)].mean() > 0.98
    assert not result.mask[~frame.inside()].any()
    rim = (depth(result.mask) > 0) & (depth(result.mask) <= 1.5)
    assert np.abs(result.image.astype(int) - photo)[rim].mean() < 1.5


def test_a_face_without_points_or_far_too_large_is_a_reason() -> None:
    with pytest.raises(AlignmentError, match="lacks"):
        Frame.of(())
    points = np.asarray(face(PLAIN).facts.points).reshape(5, 2)
    with pytest.raises(AlignmentError, match="cut off"):
        Frame.of(tuple(((points - 256) * 3 + 256).ravel().tolist()))
