"""Looks for numbers that are none (NaN) among the weights of a bundle, without a library.

A network often hides them: a rectifier turns NaN into 0, and all tilts then read alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from engines.bundle import Bundle
from engines.errors import BundleError
from engines.onnx_graph import HOLDERS, GraphError, fields_of, message_of

_ONNX_TYPES = {1: "<f4", 10: "<f2", 11: "<f8", 16: "bfloat16"}
"""TensorProto.DataType of the kinds that can hold NaN."""
_DATA_TYPE, _FLOATS, _RAW, _DOUBLES = 2, 4, 9, 10
_SAFETENSORS_TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "bfloat16"}
_LENGTH_BYTES = 8
_MAX_DEPTH = 16


def check_weights(bundle: Bundle) -> None:
    """Look at every weight of a bundle; raises `BundleError` where one is no number."""
    for name in bundle.manifest.files:
        if name.endswith((".onnx", ".safetensors")):
            holds = _onnx_holds_nan if name.endswith(".onnx") else _safetensors_hold_nan
            try:
                has_nan = holds(bundle.read(name))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise BundleError(
                    f"'{bundle.directory / name}' holds no weights that can be read ({error}); "
                    "export the bundle again."
                ) from error
            if has_nan:
                raise BundleError(
                    f"'{bundle.directory / name}' holds weights that are not numbers (NaN); train "
                    "or export the bundle again."
                )


def _onnx_holds_nan(content: bytes) -> bool:
    return any(_has_nan(data, kind) for kind, data in _tensors(memoryview(content), "model", 0))


def _tensors(view: memoryview, kind: str, depth: int) -> Iterator[tuple[str, memoryview]]:
    """Yield the numbers of every tensor that may hold NaN, wherever in a graph it sits."""
    if depth > _MAX_DEPTH:
        raise GraphError("its graphs are nested too deeply")
    if kind == "tensor":
        yield from _numbers(dict(fields_of(view)))
        return
    holders = HOLDERS[kind]
    for number, value in fields_of(view):
        if number in holders:
            yield from _tensors(message_of(value), holders[number], depth + 1)


def _numbers(fields: dict[int, int | memoryview]) -> Iterator[tuple[str, memoryview]]:
    element = fields.get(_DATA_TYPE)
    raw_kind = _ONNX_TYPES.get(element) if isinstance(element, int) else None
    for field, kind in ((_RAW, raw_kind), (_FLOATS, "<f4"), (_DOUBLES, "<f8")):
        if kind is not None and field in fields:
            yield kind, message_of(fields[field])


def _safetensors_hold_nan(content: bytes) -> bool:
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    data = memoryview(content)[_LENGTH_BYTES + length :]
    header: dict[str, Any] = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        begin, end = tensor["data_offsets"]
        if not 0 <= begin <= end <= len(data):
            raise ValueError("it is cut off")
        kind = _SAFETENSORS_TYPES.get(tensor["dtype"])
        if kind is not None and _has_nan(data[begin:end], kind):
            return True
    return False


def _has_nan(data: memoryview, kind: str) -> bool:
    if kind == "bfloat16":  # the upper half of a float32
        bits = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return bool(np.isnan(bits.view(np.float32)).any())
    return bool(np.isnan(np.frombuffer(data, kind)).any())
