"""Faces as insightface sees them: where, how old, which way they look, and whose they are. Never downloads anything.

insightface speaks BGR, calls the viewer's left eye the left one, answers with objects that cannot be copied, and
fails on a wrong pack with a bare AssertionError. None of this leaves the module: pictures are RGB, sides are the
subject's, answers are plain records, and every trap of a pack folder is an error that names the file and the way out.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmtt_build.errors import BadImage, ConfigError, WeightsError, WeightsMissing
from mmtt_build.masks import Image
from mmtt_build.weights import Weights, catalogue

Embedding = NDArray[np.float32]

RECOGNITION, AGE, POSE = "recognition", "genderage", "landmark_3d_68"
"""Tasks that an analysis can ask a pack for, by insightface's names; it always detects."""

DETECTED = 0.5
"""Least detection score of a face, insightface's own default."""

SECOND_FACE = 0.25
"""A face counts beside the largest one from this share of its side on.

The face of an aligned picture is about 300 px high at 512x512; a quarter of that is fewer pixels than the 112 that
the recognition network looks at, so whose face it is can no longer be told."""

_KPS_ORDER = (1, 0, 2, 4, 3)
"""Subject's left eye, right eye, nose, left and right mouth corner among insightface's points, and the way back."""

_RUNS = "opset 17 and IR version 9 run everywhere; torch.onnx.export(..., opset_version=17) writes them"


@dataclass(frozen=True, slots=True, eq=False)
class FaceFacts:
    """One face in a picture.

    Attributes:
        box: left, top, right, bottom in pixels; may reach beyond the picture.
        points: x, y of the subject's left eye, right eye, nose, mouth's left and right corner, 10 numbers in pixels, as
            `records.Pristine.points`.
        score: of the detector, 0 to 1.
        age: estimated years, or None where the pack was not asked.
        pose: yaw, pitch, roll in degrees, insightface's signs, or None where the pack was not asked.
        embedding: (512,) float32 of length 1, or None where the pack was not asked.
    """

    box: tuple[float, ...]
    points: tuple[float, ...]
    score: float
    age: int | None = None
    pose: tuple[float, ...] | None = None
    embedding: Embedding | None = field(default=None, repr=False)

    @property
    def side(self) -> float:
        """Side in pixels of the square that is as large as the box."""
        left, top, right, bottom = self.box
        return float(np.sqrt(max(right - left, 0.0) * max(bottom - top, 0.0)))

    @property
    def kps(self) -> NDArray[np.float32]:
        """The points in insightface's order, (5, 2) float32: viewer's left eye first."""
        return np.array(self.points, np.float32).reshape(5, 2)[list(_KPS_ORDER)]

    def similarity(self, other: FaceFacts) -> float:
        """Cosine of the two embeddings, -1 to 1."""
        if self.embedding is None or other.embedding is None:
            raise ValueError("faces without embeddings cannot be compared: analyse them with RECOGNITION")
        return float(self.embedding @ other.embedding)


def find_pack(name: str, weights: Weights) -> tuple[Path, str]:
    """The folder of a pack and what identifies its content.

    Args:
        name: of the catalogue ("buffalo_l"), or the path of a folder, spelled with a slash ("./packs/mine"), so that a
            folder that happens to be called like a pack is never taken for it.
        weights: where the catalogue's checkpoints are looked for.

    Raises:
        ConfigError: neither.
        WeightsMissing, WeightsError, TermsNotAccepted: of the checkpoint.
    """
    if name in catalogue():
        found = weights.find(name)
        return found.path, found.identity
    if not {"/", "\\"} & set(name):
        packs = ", ".join(sorted(key for key in catalogue() if key.startswith(("buffalo", "antelope"))))
        raise ConfigError(
            f"unknown face pack '{name}'", f"known: {packs}; a folder of one's own is named by its path, ./{name}"
        )
    folder = Path(name).expanduser().resolve()
    pack_files(folder)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    lines = []
    for name, path in sorted(files.items()):
        with path.open("rb") as stream:
            lines.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {name}\n")
    # As `Weights.add` makes it: the same pack, taken into the catalogue later, stays the same one.
    return folder, hashlib.sha256("".join(lines).encode()).hexdigest()


def pack_files(folder: Path) -> list[Path]:
    """The *.onnx files of a pack folder, in name order.

    Raises:
        WeightsMissing: no such folder.
        WeightsError: a file, an empty folder, or one whose pack lies a folder deeper.
    """
    if not folder.exists():
        raise WeightsMissing(f"face pack {folder} does not exist", "name the folder that holds its *.onnx files")
    if not folder.is_dir():
        raise WeightsError(f"face pack {folder} is a file", "unpack it and name the folder that holds its *.onnx files")
    files = sorted(folder.glob("*.onnx"))
    if files or (folder / "manifest.json").is_file():
        return files
    inner = sorted({path.parent for path in folder.glob("*/*.onnx")} | {p.parent for p in folder.glob("*/*/*.onnx")})
    if inner:  # antelopev2.zip unpacks like this
        raise WeightsError(
            f"face pack {folder} holds no *.onnx itself: they lie in {', '.join(map(str, inner))}", f"name {inner[0]}"
        )
    raise WeightsError(f"face pack {folder} is empty: it holds no *.onnx", "unpack the pack into it")


def session_arguments(device: str, threads: int = 0) -> dict[str, Any]:
    """What insightface's loaders pass on to onnxruntime.

    Args:
        device: "cpu", "cuda:0", ...
        threads: of one network on the CPU; 0 takes all cores.

    Raises:
        ConfigError: a device that this onnxruntime does not drive; it would fall back to the CPU and say nothing.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that spin while they wait take the cores from those that read and write files.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return {"providers": ["CPUExecutionProvider"], "sess_options": options}
    if kind != "cuda" or not (index or "0").isdecimal():
        raise ConfigError(f"device '{device}'", "cpu, cuda or cuda:N")
    there = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" not in there:
        runs_on = ", ".join(provider.removesuffix("ExecutionProvider") for provider in there)
        raise ConfigError(
            f"device '{device}': this onnxruntime runs on {runs_on}",
            "pip install onnxruntime-gpu in place of onnxruntime, or --device cpu",
        )
    cuda = ("CUDAExecutionProvider", {"device_id": int(index or 0)})
    return {"providers": [cuda, "CPUExecutionProvider"], "sess_options": options}


def check_device(session: Any, device: str, name: str) -> None:
    """Holds a loaded session against the device that was asked for.

    Raises:
        ConfigError: onnxruntime could not start CUDA and took the CPU instead.
    """
    if device.startswith("cuda") and "CUDAExecutionProvider" not in session.get_providers():
        raise ConfigError(
            f"{name} does not run on '{device}': onnxruntime could not start CUDA",
            "install the CUDA and cuDNN versions that this onnxruntime-gpu was built for, or --device cpu",
        )


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keeps insightface silent: it prints on loading, and at every alignment scikit-image warns of an old call."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.filterwarnings("ignore", message=".*estimate.*is deprecated", category=FutureWarning)
        yield


class Analysis:
    """insightface's FaceAnalysis over one pack folder.

    Args:
        pack: the folder with the *.onnx files.
        device: "cpu" or "cuda:N".
        needs: of `RECOGNITION`, `AGE` and `POSE`, what `faces` is to answer; the rest is not computed.
        det_thresh: least detection score.
        threads: of one network on the CPU; 0 takes all cores.

    Raises:
        WeightsMissing: no such folder.
        WeightsError: the pack cannot be used; the message names the file and what is wrong with it.
        ConfigError: the device.
    """

    def __init__(
        self,
        pack: Path,
        device: str = "cpu",
        *,
        needs: Collection[str] = (RECOGNITION, AGE, POSE),
        det_thresh: float = DETECTED,
        threads: int = 0,
    ) -> None:
        from insightface.app import FaceAnalysis

        self.pack = pack.resolve()
        arguments = session_arguments(device, threads)
        files = pack_files(self.pack)
        index = int(device.partition(":")[2] or 0) if device.startswith("cuda") else -1
        with quietly():
            try:
                # An absolute path: a bare name would be looked up in the current folder, and downloaded.
                app = FaceAnalysis(name=str(self.pack), **arguments)
            except Exception as error:  # bare assertions, onnxruntime's own kinds, protobuf's
                raise self._explain(files, arguments, error) from error
            self._refuse_doubles(app, files, arguments)
            app.models = {task: model for task, model in app.models.items() if task in ("detection", *needs)}
            app.prepare(index, det_thresh=det_thresh)
        tasks = ", ".join(f"{task} in {Path(model.model_file).name}" for task, model in app.models.items())
        for task in needs:
            if task not in app.models:
                raise WeightsError(
                    f"face pack {self.pack} has no {task} network, only {tasks}",
                    "take a pack that has one, e.g. buffalo_l"
                    + (", or switch the age rule off: [ingest] min_estimated_age = 0" if task == AGE else ""),
                )
        if not app.det_model.use_kps:
            raise WeightsError(
                f"{app.det_model.model_file} finds boxes without key points, which alignment needs",
                "take a detector with nine outputs (scores, boxes, key points)",
            )
        for model in app.models.values():
            check_device(model.session, device, Path(model.model_file).name)
        self._app = app

    def faces(self, image: Image) -> list[FaceFacts]:
        """The faces of a picture, the largest first; [] where there is none.

        Args:
            image: (H, W, 3) uint8 RGB.

        Raises:
            BadImage: another shape or type, or networks that answer with no numbers.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise BadImage(f"picture of shape {image.shape} {image.dtype}, needs (H, W, 3) uint8 RGB")
        with quietly():
            try:
                found = self._app.get(np.ascontiguousarray(image[..., ::-1]))
            except (ValueError, ArithmeticError, AssertionError, cv2.error) as error:  # no number, or a box of no size
                raise BadImage(f"insightface fails on it: {_first_line(error)}") from error
        return sorted((_facts(face) for face in found), key=lambda face: -face.side)

    def main_face(self, image: Image) -> FaceFacts | None:
        """The largest face of a picture, or None.

        Args:
            image: (H, W, 3) uint8 RGB.
        """
        return next(iter(self.faces(image)), None)

    def _refuse_doubles(self, app: Any, files: list[Path], arguments: Mapping[str, Any]) -> None:
        """Says what insightface does not: of two networks for one task it takes the first by name."""
        if app.model_package is not None:  # a manifest names its files
            return
        taken = {Path(model.model_file).name: task for task, model in app.models.items()}
        for file in files:
            if file.name in taken:
                continue
            task = _task(file, arguments)
            other = next((name for name, of in taken.items() if of == task), None)
            if other:
                raise WeightsError(
                    f"face pack {self.pack} has two {task} networks: {other} and {file.name}",
                    "move the one that is not meant out of the folder",
                )

    def _explain(self, files: list[Path], arguments: Mapping[str, Any], error: Exception) -> WeightsError:
        """Which file of a pack that could not be loaded is at fault."""
        kinds = {}
        for file in files:
            try:
                kinds[file.name] = _task(file, arguments)
            except Exception as reason:
                return unloadable(file, reason)
        for name, task in kinds.items():
            if task == "swapper":
                return WeightsError(
                    f"face pack {self.pack} holds a swapper, {name}, which insightface cannot load with a pack",
                    f"move it out of the folder; mmtt weights add inswapper {name}",
                )
        listed = ", ".join(f"{name} ({task or 'not recognised'})" for name, task in kinds.items())
        if "detection" not in kinds.values() and not (self.pack / "manifest.json").is_file():
            return WeightsError(f"face pack {self.pack} has no detection network: {listed}", "unpack the whole pack")
        return WeightsError(
            f"face pack {self.pack} cannot be loaded: {type(error).__name__}: {_first_line(error)}",
            "unpack the pack anew",
        )


def counted(faces: list[FaceFacts]) -> list[FaceFacts]:
    """The faces that make a picture one of several people: the largest, and those not much smaller (`SECOND_FACE`)."""
    return [face for face in faces if face.side >= SECOND_FACE * faces[0].side]


def unloadable(file: Path, error: Exception) -> WeightsError:
    """The error for an ONNX file that onnxruntime or insightface refuses."""
    reason = _first_line(error)
    dated = any(word in reason for word in ("opset", "Opset", "IR version"))
    return WeightsError(
        f"{file} cannot be loaded: {reason}", f"export it again: {_RUNS}" if dated else "obtain the file anew"
    )


def _task(file: Path, arguments: Mapping[str, Any]) -> str | None:
    """What insightface takes a file for, or None."""
    from insightface.model_zoo import get_model
    from insightface.model_zoo.inswapper import INSwapper

    with quietly():
        model = get_model(str(file), **arguments)
    return "swapper" if isinstance(model, INSwapper) else getattr(model, "taskname", None)


def _facts(face: Any) -> FaceFacts:
    """Copies at once what is needed: insightface's own record can be neither pickled nor copied."""
    pitch_yaw_roll, embedding = face.pose, face.embedding
    if embedding is not None:
        length = float(np.linalg.norm(embedding))
        if not 0 < length < np.inf:
            raise BadImage(f"the recognition network answered with a vector of length {length:g}")
        embedding = (embedding / length).astype(np.float32)
    return FaceFacts(
        box=tuple(map(float, face.bbox)),
        points=tuple(map(float, face.kps[list(_KPS_ORDER)].ravel())),
        score=float(face.det_score),
        age=None if face.age is None else int(face.age),
        pose=None if pitch_yaw_roll is None else tuple(float(pitch_yaw_roll[i]) for i in (1, 0, 2)),
        embedding=embedding,
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
