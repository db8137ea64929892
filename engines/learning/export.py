"""Write a bundle: python -m engines.learning.export --run RUN --out DIR --version 0.2.0.

A run that was not calibrated gives a bundle that says what the network says, cut at one half:
`engines.learning.domain` and `engines.learning.calibrate` with `--install` add what is missing.
"""

from __future__ import annotations

import argparse
import copy
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import save_file

from engines.bundle import GRAPH, MANIFEST, SCHEMA, manifest_entry
from engines.learning.calibration import FILE as CALIBRATION
from engines.learning.calibration import Calibrated
from engines.learning.checkpoint import trained_model
from engines.learning.measuring import AS_IT_IS, MIN_PART_NM2, ports_of
from engines.networks import CHANNELS, IceModel

HALF_GRAPH = "model_fp16.onnx"
WEIGHTS = "weights.safetensors"
OPSET = 20
SMALLEST_STORED_AS_HALF = 256
"""Values; smaller constants (biases, sizes) stay as they are."""
TOLERANCE = {GRAPH: 0.02, HALF_GRAPH: 0.05}
"""Largest difference of a probability between the written graph and torch in float32."""
SHAPES = ((1, 96, 160), (3, 256, 224), (1, 608, 608))


@dataclass(frozen=True, slots=True)
class BundleIdentity:
    """What a bundle is called."""

    name: str
    version: str


def export_bundle(
    model: IceModel,
    out: Path,
    identity: BundleIdentity,
    calibrated: Calibrated,
    training: dict[str, Any],
) -> Path:
    """Write graphs, weights and manifest of a trained network: the path of the manifest.

    The manifest is written last, so that a bundle cut in the middle is not taken for whole.
    Raises ValueError where ONNX Runtime and torch disagree.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)
    model = model.eval().float()
    save_graph(model, out / GRAPH)
    store_weights_as_half(out / GRAPH)
    # made in torch: converters that edit the ONNX file have given graphs that do not parse
    save_graph(copy.deepcopy(model).halve(), out / HALF_GRAPH)
    halves = {k: _half(v).contiguous() for k, v in model.state_dict().items()}
    save_file(halves, out / WEIGHTS)
    (out / WEIGHTS).chmod(0o644)
    for name, tolerance in TOLERANCE.items():
        verify(model, out / name, tolerance)
    files = (GRAPH, HALF_GRAPH, WEIGHTS)
    manifest = {
        "schema": SCHEMA,
        "name": identity.name,
        "version": identity.version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "pixel_size_angstrom": model.settings.pixel_size_angstrom,
        "channels": list(CHANNELS),
        "ice_channel": "ice_0.10",
        "threshold": calibrated.threshold,
        "min_part_nm2": MIN_PART_NM2,
        "calibration": calibrated.calibration.model_dump(),
        "feature_sizes": list(model.feature_sizes),
        "memory_channels": model.settings.memory_channels,
        "files": {name: manifest_entry((out / name).read_bytes()) for name in files},
        "training": training,
    }
    path = out / MANIFEST
    path.write_text(json.dumps(manifest, indent=1) + "\n")
    return path


def save_graph(model: IceModel, path: Path) -> None:
    """Export to ONNX: batch 1 to 8, height and width any multiples of 32."""
    example = (
        torch.rand(2, 1, 96, 128) * 100,
        torch.ones(2, 1, 96, 128),
        torch.rand(2, model.settings.memory_channels, 24, 32),
        torch.ones(2, 1, 24, 32),
    )
    batch, rows, columns = (
        torch.export.Dim(name, min=1, max=most)
        for name, most in (("batch", 8), ("rows", 256), ("columns", 256))
    )
    axes = {0: batch, 2: 32 * rows, 3: 32 * columns}
    small = {0: batch, 2: 8 * rows, 3: 8 * columns}
    inputs = {"picture": axes, "valid": axes, "memory": small, "memory_weight": small}
    with warnings.catch_warnings():
        # the exporter says of each axis shared by both inputs that it is shared
        warnings.filterwarnings("ignore", message="# The axis name", category=UserWarning)
        program = torch.onnx.export(
            model,
            example,
            dynamo=True,
            dynamic_shapes=inputs,
            input_names=list(inputs),
            output_names=ports_of(model).outputs,
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise ValueError("The exporter gave no graph.")
    program.save(path, external_data=False)
    forget_origin(path)


def forget_origin(path: Path) -> None:
    """Drop what the exporter notes of the source that each node comes from: paths, line by line."""
    graph_file = onnx.load(path)
    for part in (*graph_file.graph.node, *graph_file.graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(graph_file, path)


def store_weights_as_half(path: Path) -> None:
    """Store the large constants of a graph as float16 and cast them back when it is loaded."""
    graph_file = onnx.load(path)
    graph = graph_file.graph
    casts = []
    for constant in graph.initializer:
        values = onnx.numpy_helper.to_array(constant)
        if values.dtype != np.float32 or values.size < SMALLEST_STORED_AS_HALF:
            continue
        name = constant.name
        half = onnx.numpy_helper.from_array(values.astype(np.float16), name + ".half")
        constant.CopyFrom(half)
        casts.append(onnx.helper.make_node("Cast", [half.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(graph_file)
    onnx.save(graph_file, path)


def verify(model: IceModel, path: Path, tolerance: float) -> float:
    """Compare a written graph with torch on random pictures: the largest difference.

    Raises ValueError where a probability differs by more than `tolerance`.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    worst = 0.0
    for batch, rows, columns in SHAPES:
        picture = generator.poisson(200.0, (batch, 1, rows, columns)).astype(np.float32)
        picture[:, :, rows // 3 : rows // 2, columns // 4 : columns // 2] *= 0.7
        valid = np.ones_like(picture)
        valid[:, :, :7] = 0.0
        worst = max(worst, _difference(model, session, picture, valid, generator))
    if worst > tolerance:
        raise ValueError(f"{path} differs from torch by {worst:.4f}, more than {tolerance}.")
    return worst


def _difference(
    model: IceModel,
    session: Any,
    picture: NDArray[np.float32],
    valid: NDArray[np.float32],
    generator: np.random.Generator,
) -> float:
    """Compare one answer with torch, neighbours included: the largest difference."""
    given = ports_of(model).inputs(picture, valid, None)
    given["memory"][:] = generator.normal(0.0, 1.0, given["memory"].shape)
    given["memory_weight"][:, :, 8:] = 1.0
    found = session.run(None, given)
    with torch.inference_mode():
        expected = model(*(torch.from_numpy(one) for one in given.values()))
    probability, area, features, left = (
        float(np.abs(a - b.numpy()).max()) for a, b in zip(found, expected, strict=True)
    )
    scale = max(1.0, *(float(one.abs().max()) for one in expected[2:]))
    return max(probability, area / float(valid[0].sum()), max(features, left) / scale)


def _half(values: torch.Tensor) -> torch.Tensor:
    return values.half() if values.dtype == torch.float32 else values


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m engines.learning.export", description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="default")
    parser.add_argument("--version", required=True)
    parser.add_argument("--note", help="what a reader of the manifest should know")
    given = parser.parse_args(arguments)
    model, training = trained_model(given.run)
    has_own = (given.run / CALIBRATION).exists()
    calibrated = Calibrated.read(given.run) if has_own else Calibrated(0.5, AS_IT_IS)
    if given.note:
        training["note"] = given.note
    identity = BundleIdentity(given.name, given.version)
    path = export_bundle(model, given.out, identity, calibrated, training)
    size = sum(p.stat().st_size for p in given.out.iterdir() if p.is_file()) / 1e6
    Console().print(f"{path} written, {size:.1f} MB in all")


if __name__ == "__main__":
    main()
