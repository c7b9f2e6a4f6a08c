"""Face-vid2vid: the published file's shapes, recorded outputs, and each short cut held against the long way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.spatial.transform import Rotation
from tiny_gan import DATA, drawn

from generators.nn import facevid2vid
from generators.nn.facevid2vid import estimators, generator, layers, spade
from mmtt_build.catalogue import entry
from mmtt_build.weights import prove


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def filled(network: torch.nn.Module) -> Any:
    """Weights by their names, of a size that keeps features about as large as they are."""
    state = network.state_dict()
    for name, value in state.items():
        if name.endswith(("num_batches_tracked", "down.weight")):
            continue
        if name.endswith("weight_u"):
            weight, other = (state[name.removesuffix("u") + end] for end in ("orig", "v"))
            state[name] = 1.5 * F.normalize(weight.flatten(1) @ other, dim=0)
        elif value.ndim > 1:
            last = name.endswith(("conv_img.weight", "kp.weight"))  # what a sigmoid or a sharp softmax follows
            state[name] = drawn(name, *value.shape, std=(0.1 if last else 1) * (2 / value[0].numel()) ** 0.5)
        elif name.endswith("weight_v"):
            state[name] = drawn(name, *value.shape, std=value.numel() ** -0.5)
        else:
            state[name] = drawn(name, *value.shape, mean=float("norm" in name and name.endswith("weight")), std=0.1)
        if name.endswith("running_var"):
            state[name] = 1.0 + state[name].abs()
    network.load_state_dict(state, strict=True)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tiny() -> facevid2vid.FaceVid2Vid:
    """For pictures of 64 pixels, with three key points."""
    motion = generator.DenseMotion(points=3, features=4, depth=4, width=4, most=16, blocks=2, compress=2)
    detector = estimators.KeypointDetector(points=3, width=4, most=16, depth=4, blocks=2)
    head = estimators.HeadEstimator(points=3, width=4)
    painter = generator.Generator(motion, width=8, features=4, depth=4, blocks=2)
    made: facevid2vid.FaceVid2Vid = filled(facevid2vid.FaceVid2Vid(painter, detector, head))
    return made


def pictures(name: str, count: int = 1) -> torch.Tensor:
    """Smooth patterns in [0, 1]."""
    return F.interpolate(drawn(name, count, 3, 8, 8), size=(64, 64), mode="bilinear").sigmoid()


def points(name: str, count: int = 1) -> torch.Tensor:
    return drawn(name, count, 3, 3, std=0.3)


SIZES = {"generator": (386, 101_069_524), "kp_detector": (75, 41_946_516), "he_estimator": (402, 30_315_182)}
"""Tensors and numbers of the published file's parts."""


def test_the_published_networks_have_as_many_tensors_and_numbers_as_their_file() -> None:
    with torch.device("meta"):
        parts = dict(facevid2vid.build().named_children())
    states = {name: part.state_dict() for name, part in parts.items()}
    assert {name: (len(of), sum(value.numel() for value in of.values())) for name, of in states.items()} == SIZES


def test_a_file_of_the_published_form_is_taken_and_what_is_off_is_named(tmp_path: Any) -> None:
    with torch.device("meta"):
        parts = dict(facevid2vid.build().named_children())
    content: dict[str, Any] = {
        part: {name: torch.zeros((), dtype=v.dtype).expand(v.shape) for name, v in of.state_dict().items()}
        for part, of in parts.items()
    }
    file, of = tmp_path / "file.pth.tar", entry("facevid2vid")
    torch.save({**content, "epoch": 189, "optimizer_generator": {"state": {}}}, file)
    assert prove(of, file) == []
    content["he_estimator"]["fc_yaw.bias"] = torch.zeros(65)
    missing = content["kp_detector"].pop("down.weight")
    torch.save(content, file)
    assert prove(of, file) == [
        "missing: kp_detector.down.weight",
        "shape: he_estimator.fc_yaw.bias is (65,), needed is (66,)",
    ]
    content["kp_detector"]["down.weight"] = missing
    torch.save({name: content[name] for name in ("generator", "kp_detector")}, file)
    assert prove(of, file) == ["top level lacks he_estimator; it has generator, kp_detector"]


def test_pictures_are_the_recorded_ones(tiny: facevid2vid.FaceVid2Vid) -> None:
    source, driving = pictures("source"), pictures("driving")
    with torch.inference_mode(), np.load(DATA / "facevid2vid.npz") as recorded:
        made = tiny(source, driving)
        np.testing.assert_allclose(made[..., ::2, ::2], recorded["picture"], atol=1e-4)
        np.testing.assert_allclose(tiny.kp_detector(source), recorded["points"], atol=1e-5)
        np.testing.assert_allclose(tiny.head_pose(driving), recorded["pose"], atol=1e-3)
        far = tiny.generator(source, points("there"), points("here"))
        np.testing.assert_allclose(far[..., ::2, ::2], recorded["moved"], atol=1e-4)
    assert made.std() > 0.05
    assert (far - made).abs().max() > 0.02


def test_pose_and_expression_come_from_the_driving_picture_and_the_rest_from_the_source(
    tiny: facevid2vid.FaceVid2Vid,
) -> None:
    source, driving = pictures("source"), pictures("driving")
    canonical = tiny.kp_detector(source)
    there, here = (tiny.he_estimator(image).placed(canonical) for image in (driving, source))
    torch.testing.assert_close(tiny(source, driving), tiny.generator(source, there, here), atol=0, rtol=0)
    assert (there - here).abs().max() > 1e-3


def test_each_picture_of_a_batch_is_made_for_itself(tiny: facevid2vid.FaceVid2Vid) -> None:
    source, driving = pictures("source", 3), pictures("driving", 3)
    torch.testing.assert_close(tiny(source, driving)[1:2], tiny(source[1:2], driving[1:2]), atol=0, rtol=0)
    together = tiny.generator(source, points("there", 3), points("here", 3))
    alone = tiny.generator(source[1:2], points("there", 3)[1:2], points("here", 3)[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=0)
    torch.testing.assert_close(tiny.kp_detector(source)[1:2], tiny.kp_detector(source[1:2]), atol=1e-5, rtol=0)
    torch.testing.assert_close(tiny.head_pose(source)[1:2], tiny.head_pose(source[1:2]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_key_points_stay_exact_and_pictures_close(
    tiny: facevid2vid.FaceVid2Vid, dtype: torch.dtype
) -> None:
    source, driving = pictures("source"), pictures("driving")
    exact = tiny(source, driving)
    with torch.inference_mode(), torch.autocast("cpu", dtype):
        close, canonical = tiny(source, driving), tiny.kp_detector(source)
        places, _ = tiny.generator.dense_motion_network(drawn("f", 1, 4, 4, 16, 16), points("there"), points("here"))
    assert (close.dtype, places.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(canonical, tiny.kp_detector(source), atol=0, rtol=0)
    assert (close - exact).abs().mean() < (4e-3 if dtype == torch.float16 else 3e-2)


def test_where_no_key_point_moves_nothing_moves(tiny: facevid2vid.FaceVid2Vid) -> None:
    motion, still = tiny.generator.dense_motion_network, points("here")
    places, seen = motion(drawn("f", 1, 4, 4, 16, 16), still, still)
    torch.testing.assert_close(places[0], layers.grid((4, 16, 16), still.device), atol=1e-6, rtol=0)
    assert bool(((seen > 0) & (seen < 1)).all())


def test_a_grid_runs_from_first_to_last_voxel() -> None:
    made = layers.grid((2, 3, 5), torch.device("cpu"))
    assert made.shape == (2, 3, 5, 3)
    assert made[1, 0, 1].tolist() == [-0.5, -1, 1]


def test_a_key_point_is_marked_by_a_bell_without_numbers_that_slow_convolutions_down() -> None:
    places, at = layers.grid((16, 64, 64), torch.device("cpu")), torch.tensor([[[0.4, -0.9, 0.0], [2.0, 0.0, 0.0]]])
    made = generator._marked(places, at)
    distance = (places.double() - at.double()[:, :, None, None, None]).square().sum(-1)
    torch.testing.assert_close(made.double(), torch.exp(-0.5 * distance / 0.01), atol=1e-6, rtol=0)
    assert bool(((made == 0) | (made > torch.finfo(torch.float32).tiny)).all())


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("dims", [2, 3])
def test_convolving_enlarged_pixels_is_repeating_them_first(times: int, dims: int) -> None:
    x, bias = drawn("x", 2, 5, *(3, 4, 6)[3 - dims :]), drawn("bias", 7)
    weight = drawn("weight", 7, 5, *[3] * dims, std=0.2)
    repeated = F.interpolate(x, scale_factor=(1, times, times)[3 - dims :], mode="nearest")
    wanted = (F.conv3d if dims == 3 else F.conv2d)(repeated, weight, bias, padding=1)
    torch.testing.assert_close(layers.conv_of_enlarged(x, weight, bias, times), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [4, 32])
def test_features_grow_alike_with_few_pixels_and_with_many(side: int) -> None:
    up, x = filled(layers.Up(16, 8)), drawn("x", 1, 16, 4, side, side)
    assert (up.conv.weight.numel() < x.numel()) == (side == 32)
    wanted = F.relu(up.norm(up.conv(F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest"))))
    torch.testing.assert_close(up(x), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("times", [1, 2, 4])
def test_features_are_scaled_and_shifted_as_the_map_of_their_size_says(times: int) -> None:
    block, told = filled(spade.Spade(6, 5, 4)), drawn("map", 2, 5, 3, 4)
    even = drawn("features", 2, 6, 3 * times, 4 * times)
    seen = F.relu(block.mlp_shared(F.interpolate(told, scale_factor=times, mode="nearest")))
    wanted = even * (1 + block.mlp_gamma(seen)) + block.mlp_beta(seen)
    torch.testing.assert_close(block(even, told), wanted, atol=1e-5, rtol=0)


def test_features_are_normalised_as_the_library_does() -> None:
    x = 3 * drawn("x", 2, 6, 9, 7) + 5
    kept = x.clone()
    torch.testing.assert_close(spade.normed(x), F.instance_norm(x), atol=1e-5, rtol=0)
    assert torch.equal(x, kept)


@pytest.mark.parametrize(("size", "bias"), [(3, True), (1, False)])
def test_the_stored_singular_vectors_are_used_as_the_library_does(size: int, bias: bool) -> None:
    ours, x = filled(spade.SpectralConv2d(4, 6, size, bias=bias)), drawn("x", 1, 4, 5, 5)
    theirs = torch.nn.utils.spectral_norm(torch.nn.Conv2d(4, 6, size, padding=size // 2, bias=bias)).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=0)


def test_a_head_turns_by_roll_then_yaw_then_pitch() -> None:
    yaw, pitch, roll = 30.0, -20.0, 50.0
    radians = [angle * 3.14 / 180 for angle in (pitch, yaw, roll)]
    made = estimators.rotation(torch.tensor([[yaw, pitch, roll]]))
    np.testing.assert_allclose(made[0], Rotation.from_euler("XYZ", radians).as_matrix(), atol=1e-6)


def test_an_angle_is_the_expected_one_and_each_head_tells_its_own(tiny: facevid2vid.FaceVid2Vid) -> None:
    # The published yaw comes from the layer called roll, and the other way round.
    for index, layer in enumerate(("fc_roll", "fc_pitch", "fc_yaw")):
        head = filled(estimators.HeadEstimator(points=3, width=4))
        before = head(pictures("driving")).angles()
        head.get_submodule(layer).bias[40] += 100
        after = head(pictures("driving")).angles()
        assert after[0, index].item() == pytest.approx(40 * 3 - 99, abs=1e-3)
        others = [i for i in range(3) if i != index]
        assert torch.equal(after[0, others], before[0, others])


def test_expression_and_place_are_added_after_the_turn() -> None:
    logits = torch.full((1, 66), -100.0)
    logits[0, 33] = 100  # 0 degrees
    head = estimators.Head(logits, logits, logits, torch.tensor([[0.1, 0.2, 0.3]]), drawn("moved", 1, 3, 3))
    at = points("here")
    torch.testing.assert_close(head.placed(at), at + head.shift[:, None] + head.expression, atol=1e-5, rtol=0)
    logits[0, 63] = 300  # 90 degrees: x goes to where -z was
    turned = head._replace(pitch=torch.zeros(1, 66).index_fill(1, torch.tensor(33), 100.0), roll=torch.zeros(1, 66))
    turned = turned._replace(roll=turned.pitch, shift=torch.zeros(1, 3), expression=torch.zeros(1, 3, 3))
    torch.testing.assert_close(
        turned.placed(torch.eye(3)[None])[0], torch.tensor([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]), atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("size", [(64, 96), (12, 16)])
def test_shrunk_pictures_are_scipys(size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    wanted = []
    for image in images:
        smooth = ndimage.gaussian_filter(image / 255, (1.5, 1.5, 0), mode="mirror")
        wanted.append(ndimage.zoom(smooth, (0.25, 0.25, 1), order=1, mode="mirror", grid_mode=True))
    made = facevid2vid.shrink(list(images))
    assert made.dtype == torch.float32
    np.testing.assert_allclose(made, np.stack(wanted).transpose(0, 3, 1, 2), atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(facevid2vid.shrink(list(images)), made)


def test_only_sides_divisible_by_4_are_shrunk() -> None:
    with pytest.raises(ValueError, match=r"not divisible by 4: \(62, 64\)"):
        facevid2vid.shrink([np.zeros((62, 64, 3), np.uint8)])
