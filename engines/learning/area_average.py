"""Write the graphs that average raw pixels on a GPU: python -m engines.learning.area_average.

TensorRT takes no 16-bit integers, so such pixels go up as the two bytes that they are. The average
is that of `engines.preprocess`, as two matrix products: down @ pixels @ across.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.gpu.resampler import GRAPHS, graph_path

OPSET = 17


def graph_of(kind: str) -> onnx.ModelProto:
    """Make the graph for pixels of a kind: a name of a numpy dtype in `GRAPHS`."""
    bytes_each = np.dtype(kind).itemsize
    constants = {}
    if kind == "float32":
        nodes, raw = [], _port("raw", TensorProto.FLOAT, ["rows", "columns"])
        pixels = "raw"
    elif bytes_each == 1:
        nodes = [_cast("raw", "pixels")]
        raw, pixels = _port("raw", TensorProto.UINT8, ["rows", "columns"]), "pixels"
    else:
        raw = _port("raw", TensorProto.UINT8, ["rows", "columns", 2])
        constants = {"first": np.int64(0), "second": np.int64(1), "high_unit": np.float32(256)}
        nodes = [
            _cast("raw", "bytes"),
            helper.make_node("Gather", ["bytes", "first"], ["low"], axis=2),
            helper.make_node("Gather", ["bytes", "second"], ["high"], axis=2),
        ]
        high = "high"
        if kind == "int16":
            constants |= {"most": np.float32(127.5)}
            nodes += [
                helper.make_node("Greater", ["high", "most"], ["is_negative"]),
                _cast("is_negative", "negative"),
                helper.make_node("Mul", ["negative", "high_unit"], ["turn"]),
                helper.make_node("Sub", ["high", "turn"], ["signed_high"]),
            ]
            high = "signed_high"
        nodes += [
            helper.make_node("Mul", [high, "high_unit"], ["high_part"]),
            helper.make_node("Add", ["low", "high_part"], ["pixels"]),
        ]
        pixels = "pixels"
    nodes += [
        helper.make_node("MatMul", ["down", pixels], ["averaged_down"]),
        helper.make_node("MatMul", ["averaged_down", "across"], ["picture"]),
    ]
    graph = helper.make_graph(
        nodes,
        "area_average",
        [
            raw,
            _port("down", TensorProto.FLOAT, ["working_rows", "rows"]),
            _port("across", TensorProto.FLOAT, ["columns", "working_columns"]),
        ],
        [_port("picture", TensorProto.FLOAT, ["working_rows", "working_columns"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, ir_version=8, opset_imports=[opset])


def _port(name: str, kind: int, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _cast(source: str, to: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [to], to=TensorProto.FLOAT)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    argparse.ArgumentParser(
        prog="python -m engines.learning.area_average", description=__doc__
    ).parse_args(arguments)
    for kind in GRAPHS:
        path: Path = graph_path(kind)
        path.write_bytes(graph_of(kind).SerializeToString())


if __name__ == "__main__":
    main()
