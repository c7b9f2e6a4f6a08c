"""Proves ONNX files of face analysis by the shapes of their inputs and outputs, which is how insightface tells them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmtt_build.errors import WeightsError
from mmtt_build.weights import Entry

LANDMARKS = {212: "landmark_2d_106", 3309: "landmark_3d_68"}
OUTPUTS = {"genderage": 3, "recognition": 512, **{task: n for n, task in LANDMARKS.items()}}
"""Last dimension of what a task's network returns."""


def check_pack(entry: Entry, path: Path) -> list[str]:
    """What keeps a folder from being a pack of insightface that covers the catalogue's tasks; [] if it does."""
    models = sorted(path.glob("*.onnx"))
    if not models:
        nested = sorted({file.parent for file in path.glob("*/*.onnx")})
        if nested:
            return [f"its files lie one folder deeper, as some packs unpack: mmtt weights add {entry.name} {nested[0]}"]
        archives = sorted(path.glob("*.zip"))
        return [f"holds no *.onnx file{f', only {archives[0].name}: unpack it' if archives else ''}"]
    if (path / "manifest.json").is_file():
        return ["has a manifest.json: a pack of the newer kind, which has no age; use buffalo_l or antelopev2"]
    problems: list[str] = []
    tasks: dict[str, str] = {}
    for file in models:
        try:
            task = task_of(file)
        except WeightsError as error:
            problems.append(error.message)
            continue
        tasks.setdefault(task, file.name)  # the first of each task is the one that insightface takes
    lacking = [task for task in entry.tasks if task not in tasks]
    if lacking:
        there = ", ".join(f"{file} ({task or 'nothing it knows'})" for task, file in tasks.items())
        problems.append(f"has no file for {', '.join(lacking)}; it has {there or 'none that can be opened'}")
    return problems


def check_onnx(entry: Entry, path: Path) -> list[str]:
    """What keeps a file from being the catalogue's ONNX network; [] if it is."""
    try:
        task = task_of(path)
    except WeightsError as error:
        return [error.message]
    if task not in entry.tasks:
        return [f"is a network for {task or 'nothing insightface knows'}, needed is {', '.join(entry.tasks)}"]
    return _check_embedding_map(path) if task == "swapper" else []


def task_of(path: Path) -> str:
    """What an ONNX file is for, by the rules of insightface 2.1, which go by shapes; "" if it matches none.

    Raises:
        WeightsError: it is no ONNX network that the installed onnxruntime opens, or its outputs do not fit its task.
    """
    inputs, outputs = _shapes(path)
    if not inputs or not outputs or len(inputs[0]) != 4:
        return ""
    first = inputs[0]
    side = first[2] if first[2] == first[3] and isinstance(first[2], int) else 0
    if len(outputs) >= 5:
        task = "detection"
    elif side == 192:
        task = LANDMARKS.get(_last(outputs[0]) or 0, "")
        if not task:
            raise WeightsError(f"{path.name}: takes 192 x 192 and returns {outputs[0]}, not 212 or 3309 values")
    elif side == 96:
        task = "genderage"
    elif len(inputs) == 2 and side == 128:
        task = "swapper"
    elif side >= 112 and side % 16 == 0:
        task = "recognition"
    else:
        return ""
    if task == "detection" and len(outputs) not in (6, 9, 10, 15):
        raise WeightsError(f"{path.name}: a detector with {len(outputs)} outputs; 6, 9, 10 or 15 are known")
    if task == "swapper" and (_last(inputs[1]), [_fixed(n) for n in outputs[0][1:]]) != (512, [3, 128, 128]):
        raise WeightsError(f"{path.name}: a swapper takes a face and 512 values and returns 3 x 128 x 128")
    wanted = OUTPUTS.get(task)
    if wanted and _last(outputs[0]) not in (wanted, None):
        raise WeightsError(f"{path.name}: for {task} it must return {wanted} values, it returns {_last(outputs[0])}")
    return task


def _fixed(size: Any) -> int | None:
    """A dimension, if it is a number rather than a name."""
    return size if isinstance(size, int) else None


def _last(shape: list[Any]) -> int | None:
    return _fixed(shape[-1]) if shape else None


def _shapes(path: Path) -> tuple[list[list[Any]], list[list[Any]]]:
    """Shapes of inputs and outputs, as onnxruntime sees them; names stand for free sizes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # not to be run
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path.name} is no ONNX network that onnxruntime opens: {text}") from None
    return [list(i.shape) for i in session.get_inputs()], [list(o.shape) for o in session.get_outputs()]


def _check_embedding_map(path: Path) -> list[str]:
    """The swapper's last initializer must be the 512 x 512 map that insightface multiplies embeddings with."""
    import onnx

    initializers = onnx.load(str(path)).graph.initializer
    shape = list(initializers[-1].dims) if initializers else []
    return [] if shape == [512, 512] else [f"its last tensor is {shape}, not the 512 x 512 map of the embedding"]
