"""Small insightface packs, built node by node: real ONNX files that the real FaceAnalysis and INSwapper load and run.

- `spots` finds faces by what is in the picture: bright yellow-to-white squares on a dark ground. `canvas` draws them.
- `frontal` finds one face where an aligned portrait has it, whatever the picture shows.
- The embedding is a low-resolution grey picture of the aligned face, turned into a direction, so the same face gives
  the same one and two faces differ. The swapper reads the donor's low-resolution picture back out of its embedding and
  paints it in the target's mean colour: a swap that a recognition network of this kind believes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from onnx import TensorProto, helper, numpy_helper

CELLS = 14
"""Side of the low-resolution picture in an embedding: cells of 8 px of the 112 px crop."""

PORTRAIT = ((0.383, 0.472), (0.617, 0.472), (0.5, 0.61), (0.40, 0.72), (0.60, 0.72))
"""Viewer's left eye, right eye, nose, mouth corners of an aligned 512 px portrait, as shares of the frame."""


def save(graph, path: Path, opset=17, ir=9) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def constant(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def image_input(*shape):
    return helper.make_tensor_value_info("input.1", TensorProto.FLOAT, shape)


def output(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


# --- detectors ----------------------------------------------------------------------------------------------------


def spots(path: Path, opset=17, ir=9, points=True) -> Path:
    """A fully convolutional detector of any input size: a 32-px cell that is bright all over is a face.

    Red and green say that there is a face and how sure that is, blue how large it is: the box reaches 1 to 5 cells to
    each side. The coarse level does it; the two finer ones never answer.
    """
    nodes, outputs = [], {}
    values = [
        constant("bright", np.array([0.5, 0.5, 0], np.float32).reshape(1, 3, 1, 1)),
        constant("blue", np.array([0, 0, 1], np.float32).reshape(1, 3, 1, 1)),
        constant("threshold", np.float32(0.85)),
        constant("steep", np.float32(40)),
        constant("never", np.float32(0)),
        constant("two", np.float32(2)),
        constant("three", np.float32(3)),
        constant("half", np.float32(0.5)),
        # Cell centres are half a cell on; eyes, nose and mouth corners lie inside the box as in a face.
        constant("box", np.array([1, 1, 1, 1], np.float32).reshape(1, 4, 1, 1)),
        constant("middle", np.array([-0.5, -0.5, 0.5, 0.5], np.float32).reshape(1, 4, 1, 1)),
        constant(
            "kps", np.array([-0.4, -0.3, 0.4, -0.3, 0, 0.1, -0.3, 0.5, 0.3, 0.5], np.float32).reshape(1, 10, 1, 1)
        ),
    ]
    values += [constant(f"rows{wide}", np.array([-1, wide], np.int64)) for wide in (1, 4, 10)]
    for stride in (8, 16, 32):
        at = f"s{stride}"

        def add(kind, inputs, name, at=at, **attributes):
            nodes.append(helper.make_node(kind, inputs, [f"{at}_{name}"], name=f"{at}_{name}", **attributes))
            return f"{at}_{name}"

        pooled = add("AveragePool", ["input.1"], "pool", kernel_shape=[stride] * 2, strides=[stride] * 2)
        bright = add("Conv", [pooled, "bright"], "light")
        score = add("Sigmoid", [add("Mul", [add("Sub", [bright, "threshold"], "over"), "steep"], "sharp")], "sure")
        if stride < 32:
            score = add("Mul", [score, "never"], "off")
        reach = add("Add", [add("Mul", [add("Conv", [pooled, "blue"], "size"), "two"], "twice"), "three"], "reach")
        boxes = add("Sub", [add("Mul", [reach, "box"], "spread"), "middle"], "around")
        kps = add("Add", [add("Mul", [reach, "kps"], "lie"), "half"], "shift")
        for kind, of, wide in (("score", score, 1), ("bbox", boxes, 4), ("kps", kps, 10)):
            rows = add("Transpose", [of], f"{kind}_last", perm=[0, 2, 3, 1])
            twice = add("Concat", [rows, rows], f"{kind}_both", axis=3)  # two anchors a cell
            outputs[kind, stride] = add("Reshape", [twice, f"rows{wide}"], kind)
    kinds = {"score": 1, "bbox": 4, "kps": 10} if points else {"score": 1, "bbox": 4}
    listed = [output(outputs[kind, stride], f"n{stride}", w) for kind, w in kinds.items() for stride in (8, 16, 32)]
    graph = helper.make_graph(nodes, "spots", [image_input(1, 3, "height", "width")], listed, values)
    return save(graph, path, opset, ir)


def canvas(*faces):
    """A dark picture, (512, 512, 3) uint8 RGB, with a spot per face: (column, row, reach, brightness).

    Columns and rows count the 20 x 20 cells of 25.6 px that the detector looks at; a face reaches so many cells to each
    side.
    """
    image = np.full((512, 512, 3), 20, np.uint8)
    for column, row, reach, bright in faces:
        blue = np.clip(round(127.5 + 64 * (reach - 3)), 0, 255)
        left, top = round(25.6 * column), round(25.6 * row)
        image[top - 3 : top + 29, left - 3 : left + 29] = (bright, bright, blue)
    return image


def frontal(path: Path, points: Sequence[tuple[float, float]] = PORTRAIT, side=128) -> Path:
    """A detector of a fixed input size that always answers with the one face of an aligned portrait."""
    count = {stride: 2 * (side // stride) ** 2 for stride in (8, 16, 32)}
    blocks = {("score", s): np.zeros((n, 1), np.float32) for s, n in count.items()}
    blocks |= {("bbox", s): np.zeros((n, 4), np.float32) for s, n in count.items()}
    blocks |= {("kps", s): np.zeros((n, 10), np.float32) for s, n in count.items()}
    cell = side // 32 // 2
    anchor = 2 * (cell * (side // 32) + cell)
    centre = cell * 32
    left, top, right, bottom = (share * side for share in (0.22, 0.24, 0.78, 0.86))
    blocks["score", 32][anchor] = 0.9
    blocks["bbox", 32][anchor] = np.array([centre - left, centre - top, right - centre, bottom - centre]) / 32
    blocks["kps", 32][anchor] = (np.array(points).ravel() * side - centre) / 32
    nodes, values = [], [constant("nothing", np.float32(0))]
    nodes.append(helper.make_node("ReduceMean", ["input.1"], ["mean"], name="mean", keepdims=0))
    nodes.append(helper.make_node("Mul", ["mean", "nothing"], ["zero"], name="zero"))
    outputs = []
    for kind in ("score", "bbox", "kps"):
        for stride in (8, 16, 32):
            name = f"{kind}_{stride}"
            values.append(constant(f"{name}_all", blocks[kind, stride]))
            nodes.append(helper.make_node("Add", [f"{name}_all", "zero"], [name], name=name))
            outputs.append(output(name, *blocks[kind, stride].shape))
    return save(helper.make_graph(nodes, "frontal", [image_input(1, 3, side, side)], outputs, values), path)


# --- attributes ---------------------------------------------------------------------------------------------------


def genderage(path: Path) -> Path:
    """Age from the mean red of the crop: 100 years at 255, so that a test can paint an age; always male."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["input.1"], ["mean"], name="mean"),
        helper.make_node("Flatten", ["mean"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["fc1"], name="fc1"),
    ]
    weight = np.zeros((3, 3), np.float32)
    weight[0, 2] = 128 / 255
    values = [constant("weight", weight), constant("bias", np.array([0, 1, 0.5], np.float32))]
    graph = helper.make_graph(nodes, "genderage", [image_input(1, 3, 96, 96)], [output("fc1", 1, 3)], values)
    return save(graph, path)


def landmark_3d_68(path: Path, yaw=0.0, pitch=0.0, roll=0.0) -> Path:
    """Always insightface's own mean face, turned by angles in degrees; 1103 points, of which the last 68 count."""
    from insightface.data import get_object

    rx, ry, rz = np.radians([pitch, yaw, roll])
    about_x = [[1, 0, 0], [0, np.cos(rx), -np.sin(rx)], [0, np.sin(rx), np.cos(rx)]]
    about_y = [[np.cos(ry), 0, np.sin(ry)], [0, 1, 0], [-np.sin(ry), 0, np.cos(ry)]]
    about_z = [[np.cos(rz), -np.sin(rz), 0], [np.sin(rz), np.cos(rz), 0], [0, 0, 1]]
    shape = np.asarray(get_object("meanshape_68.pkl"), np.float64)
    turned = (shape - shape.mean(axis=0)) @ (np.array(about_z) @ about_y @ about_x).T
    points = np.zeros((1103, 3), np.float32)
    points[-68:] = turned / np.abs(turned).max() * 0.6
    return fixed_landmarks(path, points)


def landmark_2d_106(path: Path) -> Path:
    return fixed_landmarks(path, np.zeros((106, 2), np.float32))


def fixed_landmarks(path: Path, points) -> Path:
    nodes = [
        helper.make_node("ReduceMean", ["input.1"], ["mean"], name="mean", keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"], name="zero"),
        helper.make_node("Add", ["points", "zero"], ["fc1"], name="fc1"),
    ]
    values = [constant("nothing", np.float32(0)), constant("points", points.reshape(1, -1))]
    graph = helper.make_graph(nodes, "points", [image_input(1, 3, 192, 192)], [output("fc1", 1, points.size)], values)
    return save(graph, path)


# --- recognition and swap -----------------------------------------------------------------------------------------


def projection(seed=1):
    """The matrix, (CELLS * CELLS, 512) float32, that makes an embedding of a low-resolution picture."""
    return np.random.default_rng(seed).standard_normal((CELLS**2, 512)).astype(np.float32)


def recognition(path: Path, seed=1) -> Path:
    nodes = [
        # Not called Sub or Mul: insightface reads the normalisation off the names of the first nodes.
        helper.make_node("ReduceMean", ["input.1"], ["grey"], name="grey", axes=[1], keepdims=1),
        helper.make_node("AveragePool", ["grey"], ["cells"], name="cells", kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("ReduceMean", ["cells"], ["mean"], name="mean", axes=[2, 3], keepdims=1),
        helper.make_node("Sub", ["cells", "mean"], ["contrast"], name="contrast"),
        helper.make_node("Flatten", ["contrast"], ["flat"], name="flat"),
        helper.make_node("MatMul", ["flat", "projection"], ["683"], name="fc1"),
    ]
    values = [constant("projection", projection(seed))]
    graph = helper.make_graph(nodes, "recognition", [image_input("N", 3, 112, 112)], [output("683", "N", 512)], values)
    return save(graph, path)


def swapper(path: Path, gain=0.16, seed=1, emap=None) -> Path:
    """Paints the donor's low-resolution picture in the target's mean colour; with gain 0, the target unchanged."""
    size = 8 * CELLS
    nodes = [
        helper.make_node("MatMul", ["source", "inverse"], ["flat"], name="flat"),
        helper.make_node("Reshape", ["flat", "square"], ["cells"], name="cells"),
        helper.make_node("Resize", ["cells", "", "", "size"], ["picture"], name="up", mode="linear"),
        # The 112 px crop of the recognition network lies 8 px in from the left of the swapper's 128 px one.
        helper.make_node("Pad", ["picture", "margin"], ["whole"], name="whole", mode="edge"),
        helper.make_node("Mul", ["whole", "gain"], ["relief"], name="relief"),
        helper.make_node("ReduceMean", ["target"], ["colour"], name="colour", axes=[2, 3], keepdims=1),
        helper.make_node("Sub", ["target", "colour"], ["detail"], name="detail"),
        helper.make_node("Mul", ["detail", "kept"], ["rest"], name="rest"),
        helper.make_node("Add", ["colour", "rest"], ["ground"], name="ground"),
        helper.make_node("Add", ["ground", "relief"], ["sum"], name="sum"),
        helper.make_node("Clip", ["sum", "zero", "one"], ["output"], name="output"),
    ]
    inverse = np.linalg.pinv(projection(seed))
    typical = np.sqrt(inverse.shape[1]) * np.linalg.norm(inverse, axis=0).mean() / np.sqrt(512)
    values = [
        constant("inverse", (inverse / typical * np.sqrt(CELLS**2) / 3).astype(np.float32)),
        constant("square", np.array([1, 1, CELLS, CELLS], np.int64)),
        constant("size", np.array([1, 1, size, size], np.int64)),
        constant("margin", np.array([0, 0, 0, 8, 0, 0, 16, 8], np.int64)),
        constant("gain", np.float32(gain)),
        constant("kept", np.float32(0.0 if gain else 1.0)),
        constant("zero", np.float32(0)),
        constant("one", np.float32(1)),
        constant("emap", np.eye(512, dtype=np.float32) if emap is None else emap),
    ]
    inputs = [
        helper.make_tensor_value_info("target", TensorProto.FLOAT, (1, 3, 128, 128)),
        helper.make_tensor_value_info("source", TensorProto.FLOAT, (1, 512)),
    ]
    graph = helper.make_graph(nodes, "swapper", inputs, [output("output", 1, 3, 128, 128)], values)
    return save(graph, path)


# --- packs --------------------------------------------------------------------------------------------------------


def pack(folder: Path, detector=spots, **angles) -> Path:
    """A whole pack, file names as in buffalo_l."""
    detector(folder / "det_10g.onnx")
    recognition(folder / "w600k_r50.onnx")
    genderage(folder / "genderage.onnx")
    landmark_3d_68(folder / "1k3d68.onnx", **angles)
    landmark_2d_106(folder / "2d106det.onnx")
    return folder


def drawn_face(seed: int, age_red=150):
    """A picture for `frontal`: a face-like field of light, another one per seed; its red says the age."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, (9, 9), np.uint8)
    grey = cv2.resize(coarse, (512, 512), interpolation=cv2.INTER_CUBIC)
    return np.dstack([np.full_like(grey, age_red), grey, grey])
