import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mmtt_build
from mmtt_build import masks
from mmtt_build.errors import ContractBroken


def forgery(area=slice(2, 6)):
    base = np.full((10, 12, 3), 100, np.uint8)
    mask = np.zeros((10, 12), np.bool_)
    mask[area, 3:9] = True
    forged = base.copy()
    forged[mask] += 20
    return base, forged, mask


def test_a_forgery_that_keeps_the_contract_gets_its_figures():
    change = masks.check(*forgery())
    assert change == masks.Change(area=24 / 120, changed_share=1.0, mean_change=20.0)


def broken(**changes):
    base, forged, mask = forgery()
    return {"base": base, "forged": forged, "mask": mask, **changes}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (broken(forged=forgery()[1][:, :11]), r"image is \(10, 11, 3\) uint8, its base \(10, 12, 3\) uint8"),
        (broken(forged=forgery()[1].astype(np.float32)), r"image is \(10, 12, 3\) float32"),
        (broken(mask=forgery()[2][:9]), r"mask is \(9, 12\) bool, its image \(10, 12\) bool"),
        (broken(mask=forgery()[2].astype(np.uint8) * 255), r"mask is \(10, 12\) uint8"),
        (broken(mask=forgery()[2][..., None]), r"mask is \(10, 12, 1\) bool"),
        (broken(mask=np.zeros((10, 12), np.bool_)), "mask is empty"),
        (broken(mask=np.ones((10, 12), np.bool_)), "mask is the full frame"),
        (broken(forged=forgery()[0]), "no-op: 0.0% of the masked pixels changed"),
        (broken(forged=forgery()[1] + np.uint8(1)), "96 pixels outside the mask differ"),
    ],
)
def test_each_violation_has_its_message(row, message):
    with pytest.raises(ContractBroken, match=message):
        masks.check(**row)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_stray_pixel_by_one_level_in_one_channel_is_seen(channel):
    base, forged, mask = forgery()
    forged[9, 11, channel] -= 1
    with pytest.raises(ContractBroken, match="1 pixels outside the mask"):
        masks.check(base, forged, mask)


def test_a_change_that_hardly_shows_is_a_no_op():
    base, forged, mask = forgery()
    forged[mask] = base[mask]
    forged[3, 3:9] += 4  # a quarter of the pixels by 4 levels: exactly one level on average
    assert masks.check(base, forged, mask).mean_change == 1.0
    forged[3, 3:9] -= 1
    with pytest.raises(ContractBroken, match=r"no-op: 25\.0% of the masked pixels changed, by 0\.75 grey levels"):
        masks.check(base, forged, mask)


def naive(base, forged, mask):
    difference = np.abs(base.astype(int) - forged.astype(int))
    return masks.Change(
        area=float(mask.mean()),
        changed_share=float((difference.max(axis=2) > 0)[mask].mean()),
        mean_change=float(difference[mask].mean()),
    )


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), height=st.integers(2, 40), width=st.integers(2, 40), share=st.floats(0.05, 0.95))
def test_figures_are_those_of_the_naive_twin(seed, height, width, share):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, (height, width, 3), np.uint8)
    mask = rng.random((height, width)) < share
    mask[0, 0], mask[-1, -1] = True, False
    # Some masked pixels stay as they are, so that the changed share is not always one.
    generated = np.where(rng.random((height, width, 1)) < 0.3, base, rng.integers(0, 256, base.shape, np.uint8))
    forged = masks.composite(base, generated, mask)
    assert np.array_equal(forged[~mask], base[~mask])
    assert np.array_equal(forged[mask], generated[mask])
    expected = naive(base, forged, mask)
    if expected.changed_share < masks.MIN_CHANGED_SHARE or expected.mean_change < masks.MIN_MEAN_CHANGE:
        with pytest.raises(ContractBroken, match="no-op"):
            masks.check(base, forged, mask)
        return
    change = masks.check(base, forged, mask)
    assert change.area == pytest.approx(expected.area, abs=1e-12)
    assert change.changed_share == pytest.approx(expected.changed_share, abs=1e-12)
    assert change.mean_change == pytest.approx(expected.mean_change, rel=1e-9)


def test_views_and_strides_change_nothing():
    base, forged, mask = forgery()
    whole = masks.check(base, forged, mask)
    assert masks.check(base[:, ::-1], forged[:, ::-1], mask[:, ::-1]) == whole
    assert masks.check(base.transpose(1, 0, 2), forged.transpose(1, 0, 2), mask.T) == whole


def test_stored_masks_are_0_and_255_and_come_back():
    mask = np.random.default_rng(0).random((7, 9)) < 0.5
    grey = masks.to_grey(mask)
    assert grey.dtype == np.uint8
    assert set(np.unique(grey)) == {0, 255}
    assert np.array_equal(masks.from_grey(grey), mask)
    assert masks.from_grey(np.array([[0, 1, 127, 128, 255]], np.uint8)).tolist() == [[False, False, False, True, True]]


def test_the_threshold_is_written_once():
    package = Path(mmtt_build.__file__).parent
    files = [*package.glob("*.py"), *(package / "stages").glob("*.py"), *(package / "sources").glob("*.py")]
    homes = [p.name for p in files if re.search(r"(>=?|==|=) *12[78]\b", p.read_text("utf-8"))]
    assert homes == ["masks.py"]


@pytest.mark.parametrize(
    ("boxes", "focus"),
    [
        ([np.s_[100:200, 300:400]], (349, 149)),
        ([np.s_[100:140, 100:150], np.s_[104:150, 300:380]], (339, 124)),  # two eyes, and not the nose
        ([np.s_[0:1, 0:1]], (0, 0)),
        ([np.s_[511:512, 511:512]], (511, 511)),
        ([np.s_[:, :]], (255, 255)),
    ],
)
def test_one_looks_into_the_mask_first(boxes, focus):
    mask = np.zeros((512, 512), bool)
    for box in boxes:
        mask[box] = True
    assert masks.focus(mask) == focus
    assert mask[focus[1], focus[0]]
