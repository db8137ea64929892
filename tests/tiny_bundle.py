"""A bundle of a few hundred bytes whose answer can be foretold.

The probability of ice is a steep function of how much darker than the mean of the valid area a
pixel is, averaged over 5 x 5 pixels: 0.5 at 30 % for `ice_0.10`. Dark blobs on a brighter field
with some noise (images without noise are refused) are found whole; their share is the percentage,
since the calibration is the identity.

With a memory (`write_with_memory`), a tilt leaves its contrast, in mean over 4 x 4 pixels, and what
its neighbours left is taken off its own: what stays dark from tilt to tilt is no ice.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines.bundle import GRAPH, MANIFEST, SCHEMA, manifest_entry

CHANNELS = (
    "ice_0.06",
    "ice_0.10",
    "ice_0.15",
    "hexagonal",
    "cubic",
    "stacking_disordered",
    "distractor",
    "not_valid",
)
STEEPNESS = 80.0
ICE_CONTRAST = {"ice_0.06": 0.25, "ice_0.10": 0.3, "ice_0.15": 0.35, "not_valid": 0.9}
MEMORY_CHANNELS = 2
"""The contrast, and the same turned round."""
CONSTANT = {"hexagonal": 0.7, "cubic": 0.2, "stacking_disordered": 0.1, "distractor": 0.01}


def write(path: Path, graph: bytes | None = None, **changes: Any) -> Path:
    """Write the bundle into the folder `path`; `changes` replace keys of the manifest."""
    path.mkdir(parents=True, exist_ok=True)
    content = tiny_graph().SerializeToString() if graph is None else graph
    (path / GRAPH).write_bytes(content)
    manifest = {**manifest_of(content), **changes}
    (path / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return path


def write_with_memory(path: Path) -> Path:
    """Write a bundle that looks at neighbouring tilts."""
    return write(path, memory_graph().SerializeToString(), memory_channels=MEMORY_CHANNELS)


def manifest_of(graph: bytes) -> dict[str, Any]:
    """Describe a bundle that holds just this graph."""
    return {
        "schema": SCHEMA,
        "name": "tiny",
        "version": "1",
        "created": "2025-01-01T00:00:00Z",
        "pixel_size_angstrom": 13.5,
        "channels": list(CHANNELS),
        "ice_channel": "ice_0.10",
        "threshold": 0.5,
        "min_part_nm2": 1000.0,
        "calibration": {
            "kind": "piecewise",
            "predicted_percent": [0.0, 100.0],
            "percent": [0.0, 100.0],
            "low": [0.0, 95.0],
            "high": [5.0, 100.0],
        },
        "files": {GRAPH: manifest_entry(graph)},
        "training": {"seed": 1},
    }


def tiny_graph(channels: tuple[str, ...] = CHANNELS) -> onnx.ModelProto:
    """Build the graph; channels it does not know are taken as constant 0.5."""
    slope, offset = zip(*(_line(name) for name in channels), strict=True)
    nodes = [
        _node("Mul", ["picture", "valid"], "data"),
        _node("ReduceSum", ["data", "all_sides"], "sum", keepdims=1),
        _node("ReduceSum", ["valid", "all_sides"], "count", keepdims=1),
        _node("Max", ["count", "least"], "some"),
        _node("Div", ["sum", "some"], "mean"),
        _node("AveragePool", ["picture"], "smooth", kernel_shape=[5, 5], pads=[2, 2, 2, 2]),
        _node("Sub", ["mean", "smooth"], "darker"),
        _node("Abs", ["mean"], "positive"),
        _node("Max", ["positive", "least"], "unit"),
        _node("Div", ["darker", "unit"], "contrast"),
        _node("Conv", ["contrast", "slope", "offset"], "logit", kernel_shape=[1, 1]),
        _node("Sigmoid", ["logit"], "probability"),
        _node("Mul", ["probability", "valid"], "inside"),
        _node("ReduceSum", ["inside", "both_sides"], "area", keepdims=0),
    ]
    constants: dict[str, NDArray[Any]] = {
        "all_sides": np.array([1, 2, 3], np.int64),
        "both_sides": np.array([2, 3], np.int64),
        "least": np.array(1e-6, np.float32),
        "slope": np.array(slope, np.float32).reshape(-1, 1, 1, 1),
        "offset": np.array(offset, np.float32),
    }
    sides = ["batch", 1, "height", "width"]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [_port("picture", sides), _port("valid", sides)],
        [
            _port("probability", ["batch", len(channels), "height", "width"]),
            _port("area", ["batch", len(channels)]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, ir_version=8, opset_imports=[opset])


def memory_graph() -> onnx.ModelProto:
    """Build the graph that weighs a tilt against its neighbours."""
    model = tiny_graph()
    graph = model.graph
    at = next(k for k, node in enumerate(graph.node) if node.output[0] == "contrast")
    graph.node[at].output[0] = "own_contrast"
    pool = {"kernel_shape": [4, 4], "strides": [4, 4]}
    more = [
        _node("AveragePool", ["own_contrast"], "small", **pool),
        _node("Neg", ["small"], "turned"),
        _node("Concat", ["small", "turned"], "memory_left", axis=1),
        _node("Mul", ["memory", "memory_weight"], "known"),
        _node("Conv", ["known", "first"], "known_contrast", kernel_shape=[1, 1]),
        _node("Resize", ["known_contrast", "", "four"], "at_full_size", mode="nearest"),
        _node("Relu", ["at_full_size"], "dark_before"),
        _node("Sub", ["own_contrast", "dark_before"], "contrast"),
    ]
    nodes = [*graph.node[: at + 1], *more, *graph.node[at + 1 :]]
    del graph.node[:]
    graph.node.extend(nodes)
    first = np.array([1.0, 0.0], np.float32).reshape(1, MEMORY_CHANNELS, 1, 1)
    four = np.array([1.0, 1.0, 4.0, 4.0], np.float32)
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in (("first", first), ("four", four))
    )
    small = ["batch", MEMORY_CHANNELS, "rows", "columns"]
    weight = ["batch", 1, "rows", "columns"]
    graph.input.extend([_port("memory", small), _port("memory_weight", weight)])
    graph.output.append(_port("memory_left", small))
    return model


def expected(
    picture: NDArray[Any], valid: NDArray[Any], channels: tuple[str, ...] = CHANNELS
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Compute probability and area of a batch, (batch, 1, height, width), in float64."""
    mean = (picture * valid).sum((1, 2, 3), dtype=np.float64, keepdims=True)
    mean /= valid.sum((1, 2, 3), dtype=np.float64, keepdims=True)
    frame = ((0, 0), (0, 0), (2, 2), (2, 2))
    total, count = (
        np.lib.stride_tricks.sliding_window_view(np.pad(one, frame), (5, 5), axis=(2, 3)).sum(
            (4, 5)
        )
        for one in (picture.astype(np.float64), np.ones(picture.shape))
    )
    contrast = (mean - total / count) / np.abs(mean)
    lines = [_line(name) for name in channels]
    logit = np.concatenate([slope * contrast + offset for slope, offset in lines], axis=1)
    probability = 1.0 / (1.0 + np.exp(-logit))
    return probability, (probability * valid).sum((2, 3))


def _line(channel: str) -> tuple[float, float]:
    """Slope and offset of the logit over the contrast."""
    if channel in ICE_CONTRAST:
        return STEEPNESS, -STEEPNESS * ICE_CONTRAST[channel]
    share = CONSTANT.get(channel, 0.5)
    return 0.0, float(np.log(share / (1.0 - share)))


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], **attributes)


def _port(name: str, sides: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, sides)
