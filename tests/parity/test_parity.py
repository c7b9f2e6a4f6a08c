from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from generators.faces import parser
from parity import fill
from parity.__main__ import main
from parity.cases import network_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case of our own: 96x64 pixels, seed 7, outputs of the library's whole network."""
    folder = tmp_path_factory.mktemp("cases")
    network = parser.build().eval()
    rows, kind = [], dict[str, object]()
    for name, value in network.state_dict().items():
        if value.ndim > 1:
            kind = {"kind": "normal", "mean": 0.0, "std": value[0].numel() ** -0.5}
        elif value.ndim == 1:
            kind = {"kind": "uniform", "low": 0.5, "high": 1.5}
        else:
            kind = {"kind": "const", "value": 3}
        dtype = str(value.dtype).removeprefix("torch.")
        rows.append({"name": name, "shape": list(value.shape), "dtype": dtype, "init": kind})
    (folder / "bisenet.manifest.json").write_text(json.dumps({"tensors": rows}), "utf-8")
    weights = fill.weights(folder / "bisenet.manifest.json", 7)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    rule = {"kind": "uniform", "low": 0.0, "high": 1.0}
    drawn = fill.tensor(rule, "noise", (2, 3, 48, 32), "float32", 5).repeat(2, 2).repeat(2, 3)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    with torch.inference_mode():
        scores = network(torch.from_numpy((drawn - mean[:, None, None]) / std[:, None, None]))[0].numpy()
    meta = {
        "weights": {"manifest": "bisenet.manifest.json", "seed": 7},
        "input": {
            "fill": {"name": "noise", "shape": [2, 3, 48, 32], "dtype": "float32", "init": rule, "seed": 5},
            "then": "np.repeat x2 on both spatial axes",
        },
        "outputs": {
            "logits": {
                "full_shape": list(scores.shape),
                "stride": [1, 2, 3, 1],
                "mean": float(scores.mean(dtype=np.float64)),
                "min": float(scores.min()),
                "max": float(scores.max()),
            }
        },
    }
    write(folder / "bisenet.case-7.npz", meta, scores[:, ::2, ::3], scores.argmax(axis=1))
    return folder


def write(path: Path, meta: object, logits: np.ndarray, labels: np.ndarray) -> None:
    arrays = {"out.logits": logits, "out.labels19": labels.astype(np.uint8)}
    np.savez(path, meta=np.array(json.dumps(meta)), **arrays)


@pytest.fixture
def case(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to spoil."""
    return Path(shutil.copytree(made, tmp_path / "cases")) / "bisenet.case-7.npz"


def spoil(case: Path, meta: dict[str, object] | None = None, logits: float = 0.0, labels: int = 0) -> None:
    """Rewrites the case with a changed `meta`, one score moved, or some pixels of another class."""
    with np.load(case) as file:
        told, scores, classes = json.loads(str(file["meta"])), file["out.logits"], file["out.labels19"]
    scores[0, 0, 0, 0] += logits
    classes[0, :labels] = (classes[0, :labels] + 1) % 19
    write(case, told | (meta or {}), scores, classes)


FULL_SIZE = {
    "stylegan2", "e4e_encoder", "e4e_encoder.small", "hfgi", "mat", "e4s_net3", "e4s_net3.small", "e4s_pipeline",
    "facevid2vid", "gpen",
}  # fmt: skip
"""Gigabytes and minutes: `make parity REFERENCE=DIR` runs them."""


def test_the_recorded_cases(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (shared / "reference").glob("*.case-*.npz"):
        if network_of(path) not in FULL_SIZE:
            (tmp_path / path.name).symlink_to(path.resolve())
    status = main([str(tmp_path)])
    said = capsys.readouterr().out
    assert status == 0, said
    said = " ".join(said.split())
    assert "bisenet.case-0.npz max error" in said
    assert "bisenet.case-1.npz max error" in said
    assert "FAIL" not in said


def test_our_own_fill_is_that_of_the_reference(shared: Path) -> None:
    sys.path.insert(0, str(shared / "reference"))
    try:
        import fill as theirs
    finally:
        sys.path.pop(0)
    for manifest in ("bisenet", "styleclip_mapper", "mat.tiny"):
        path = shared / "reference" / f"{manifest}.manifest.json"
        ours = fill.weights(path, 3)
        for name, value in theirs.state_dict(path, 3).items():
            assert ours[name].dtype == value.dtype
            np.testing.assert_array_equal(ours[name], value)


def test_a_case_passes_at_any_size_and_seed(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(made)]) == 0
    said = capsys.readouterr().out
    assert "of 2 outputs), tolerance 1e-04  ok" in said
    assert "1 of 1 cases within tolerance" in said


def test_other_weights_fail(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(case, meta={"weights": {"seed": 8}})
    assert main([str(case.parent)]) == 1
    said = capsys.readouterr().out
    assert "FAIL" in said
    assert "\n  logits: " in said
    assert "\n  labels19: " in said


@pytest.mark.parametrize("change", [{"logits": 2e-4}, {"logits": np.nan}, {"labels": 40}])
def test_a_small_difference_fails(case: Path, change: dict[str, float], capsys: pytest.CaptureFixture[str]) -> None:
    spoil(case, **change)  # type: ignore[arg-type]
    assert main([str(case.parent)]) == 1
    assert "FAIL" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoiling", "said"),
    [
        (lambda case: case.write_bytes(case.read_bytes()[:2000]), "damaged"),
        (lambda case: case.write_bytes(b""), "damaged"),
        (lambda case: np.savez(case, x=np.zeros(1)), "no `meta`"),
        (lambda case: np.savez(case, meta=np.array("[1]")), "not a table"),
        (lambda case: spoil(case, {"weights": {"manifest": "other.manifest.json"}}), "no other.manifest.json in"),
        (lambda case: spoil(case, {"input": "a photograph"}), "input of an unknown kind"),
        (lambda case: spoil(case, {"outputs": {"logits": {"full_shape": [1, 19, 8, 8]}}}), "ours has the shape"),
        (lambda case: (case.parent / "bisenet.manifest.json").write_text("{"), "is no manifest"),
        (lambda case: (case.parent / "bisenet.manifest.json").write_text('{"tensors": []}'), "Missing key"),
    ],
)
def test_a_broken_case_says_why_and_the_others_still_run(
    case: Path, spoiling: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoiling(case)  # type: ignore[operator]
    (case.parent / "none-of-ours.case-0.npz").write_bytes(b"never opened")
    assert main([str(case.parent)]) == 1
    out = capsys.readouterr().out
    assert "bisenet.case-7.npz  cannot be run: " in out
    assert said in out
    assert "none-of-ours: no network for it yet (1 case)" in out
    assert "0 of 1 cases within tolerance, 1 not run" in out


def test_each_tensor_has_a_generator_of_its_own() -> None:
    rule = {"kind": "uniform", "low": -1.0, "high": 1.0}
    seeded = np.random.Generator(np.random.PCG64([zlib.crc32(b"a.weight"), 4])).uniform(-1, 1, (2, 3))
    np.testing.assert_array_equal(fill.tensor(rule, "a.weight", (2, 3), "float32", 4), seeded.astype(np.float32))
    nested = fill.tensor({"kind": "const", "value": [[1], [2]]}, "k", (2, 3), "int64", 4)
    assert nested.tolist() == [[1, 1, 1], [2, 2, 2]]
    with pytest.raises(ValueError, match="unknown fill rule 'zipf'"):
        fill.tensor({"kind": "zipf"}, "k", (2,), "float32", 0)


def test_as_a_command(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "tests.parity", tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "has no case file" in done.stdout
    done = subprocess.run([sys.executable, "-m", "tests.parity"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "")
    assert "make parity REFERENCE=DIR" in done.stdout
