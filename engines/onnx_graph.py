"""What an ONNX file takes and gives, read from its bytes without a library.

ONNX files are Protocol Buffers; the field numbers are those of onnx/onnx.proto (IR version 3 and
later). Only what a bundle must know before a runtime sees the file is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

FLOAT = 1
"""TensorProto.FLOAT."""

_MAX_DEPTH = 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_Field = tuple[int, int | memoryview]

# Where tensors sit: message -> field -> message.
_MODEL = {7: "graph", 25: "function"}
HOLDERS: dict[str, dict[int, str]] = {
    "model": _MODEL,
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


class GraphError(ValueError):
    """Raised when bytes are not an ONNX model."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a graph."""

    name: str
    element: int
    """TensorProto.DataType; 0 where the file does not say."""
    shape: tuple[int | None, ...] | None
    """None for a free side; None as a whole where the file does not say."""


@dataclass(frozen=True, slots=True)
class GraphSummary:
    """The outside of a graph, and whether its weights lie in other files."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    has_external_data: bool


def summarise(model: bytes) -> GraphSummary:
    """Read the ports of an ONNX model and look for external data; raises `GraphError`."""
    view = memoryview(model)
    graphs = [value for number, value in fields_of(view) if number == 7]
    if len(graphs) != 1:
        raise GraphError("it holds no graph")
    graph = list(fields_of(message_of(graphs[0])))
    ports = [[_port(message_of(v)) for n, v in graph if n == which] for which in (11, 12)]
    return GraphSummary(tuple(ports[0]), tuple(ports[1]), _has_external_data(view, "model", 0))


def _has_external_data(view: memoryview, kind: str, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise GraphError("its graphs are nested too deeply")
    if kind == "tensor":
        return any(
            number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
            for number, value in fields_of(view)
        )
    holders = HOLDERS[kind]
    return any(
        _has_external_data(message_of(value), holders[number], depth + 1)
        for number, value in fields_of(view)
        if number in holders
    )


def _port(view: memoryview) -> Port:
    name, element, shape = "", 0, None
    for number, value in fields_of(view):
        if number == 1:
            name = _text(value)
        elif number == 2:
            tensors = [v for n, v in fields_of(message_of(value)) if n == 1]
            if tensors:
                element, shape = _tensor_type(message_of(tensors[0]))
    return Port(name, element, shape)


def _tensor_type(view: memoryview) -> tuple[int, tuple[int | None, ...] | None]:
    element, shape = 0, None
    for number, value in fields_of(view):
        if number == 1 and isinstance(value, int):
            element = value
        elif number == 2:
            shape = tuple(_side(message_of(v)) for n, v in fields_of(message_of(value)) if n == 1)
    return element, shape


def _side(view: memoryview) -> int | None:
    sides = [value for number, value in fields_of(view) if number == 1]
    return sides[0] if sides and isinstance(sides[0], int) else None


def message_of(value: int | memoryview) -> memoryview:
    """Take a field for a part with fields of its own; raises GraphError where it is a number."""
    if isinstance(value, int):
        raise GraphError("a number stands where a part of the graph should")
    return value


def _text(value: int | memoryview) -> str:
    try:
        return bytes(message_of(value)).decode()
    except UnicodeDecodeError as error:
        raise GraphError("a name in it is not text") from error


def fields_of(view: memoryview) -> Iterator[_Field]:
    """Yield field number and value of a message; fixed-size values are skipped."""
    at, end = 0, len(view)
    while at < end:
        key, at = _varint(view, at)
        kind = key & 7
        if kind == _VARINT:
            number, at = _varint(view, at)
            yield key >> 3, number
        elif kind == _BYTES:
            size, at = _varint(view, at)
            if size > end - at:
                raise GraphError("it is cut off")
            yield key >> 3, view[at : at + size]
            at += size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise GraphError("it is not an ONNX model")


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise GraphError("it is cut off")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise GraphError("it is not an ONNX model")
