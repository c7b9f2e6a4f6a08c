from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny_clip
import torch

from generators.styleclip import text
from mmtt_build.errors import ConfigError
from mmtt_build.weights import Found, Weights


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, Any]:
    """A tiny CLIP, taken in as a lab would take the real one in, and the whole model."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("clip")
    model = tiny_clip.save(folder / "copy")
    weights = Weights((folder / "weights",))
    weights.add("clip-vit-b32", folder / "copy", accept=True)
    return weights.find("clip-vit-b32"), model


@pytest.fixture(scope="module")
def encoder(clip: tuple[Found, Any]) -> text.TextEncoder:
    return text.TextEncoder(clip[0], "cpu")


def test_there_are_the_templates_that_styleclip_averages_over() -> None:
    assert len(text.templates()) == len(set(text.templates())) == 79
    assert all(template.count("{}") == 1 for template in text.templates())
    assert "a photo of many {}." not in text.templates()


def test_features_are_those_of_the_whole_model_averaged_and_of_length_one(
    clip: tuple[Found, Any], encoder: text.TextEncoder
) -> None:
    letters, each = tiny_clip.tokenizer(), []
    with torch.inference_mode():
        for template in text.templates():  # one by one: no padding
            read = letters(template.format("face with blue eyes"), return_tensors="pt")
            hidden = clip[1].text_model(**read).pooler_output
            each.append(torch.nn.functional.normalize(clip[1].text_projection(hidden), dim=1))
    mean = torch.cat(each).mean(dim=0)
    ours = encoder.features("face with blue eyes")
    assert (ours.shape, ours.dtype) == ((tiny_clip.WIDTH,), np.float32)
    np.testing.assert_allclose(ours, (mean / mean.norm()).numpy(), atol=2e-6)


def test_a_phrase_is_encoded_once(encoder: text.TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encoder.features("face")
    monkeypatch.setattr(encoder, "_model", None)
    assert encoder.features("face") is first


def test_features_stay_in_full_precision_under_autocast(clip: tuple[Found, Any], encoder: text.TextEncoder) -> None:
    wanted = encoder.features("sad face")
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(text.TextEncoder(clip[0], "cpu").features("sad face"), wanted)


def test_a_change_points_from_the_neutral_phrase_to_the_target(encoder: text.TextEncoder) -> None:
    there = text.change(encoder, "face", "smiling face")
    assert np.linalg.norm(there) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(text.change(encoder, "smiling face", "face"), -there)
    assert there @ (encoder.features("smiling face") - encoder.features("face")) > 0


def test_case_and_spaces_mean_nothing_to_clip_and_that_is_said(encoder: text.TextEncoder) -> None:
    with pytest.raises(ConfigError, match="'face' and ' FACE ' are the same to CLIP"):
        text.change(encoder, "face", " FACE ")


def test_a_phrase_that_does_not_fit_is_refused(encoder: text.TextEncoder) -> None:
    with pytest.raises(ConfigError, match=r"takes \d+ tokens in a sentence, CLIP reads 77"):
        encoder.features("face " * 40)
    assert encoder.features("{} braces {").shape == (tiny_clip.WIDTH,)
