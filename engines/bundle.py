"""A model bundle: a folder with a manifest, ONNX graphs, and the hash of every file."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from engines.calibrations import Calibration, EvidenceCalibration
from engines.errors import BundleError
from engines.onnx_graph import FLOAT, GraphError, Port, summarise

SCHEMA = "icewatch.bundle/2"
GRAPH = "model.onnx"
MANIFEST = "manifest.json"
DEFAULT_DIRECTORY = Path(__file__).resolve().parent / "bundles" / "default"

MAX_BATCH = 8
SIDE_STEP_PX = 32
"""Height and width of what a graph takes are multiples of this."""

_MAX_MANIFEST_BYTES = 4 << 20
MEMORY_STRIDE = 4
"""Pixels of the picture for each pixel of what a tilt leaves to its neighbours."""


Label = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
FileName = Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BundleFile(_Frozen):
    """What a file of the bundle must be."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, strict=True)


class Manifest(_Frozen):
    """`manifest.json`: everything about a bundle that is not weights."""

    bundle_schema: Literal["icewatch.bundle/2"] = Field(alias="schema")
    name: Label
    version: Label
    created: Label
    pixel_size_angstrom: float = Field(ge=1.0, le=100.0)
    channels: tuple[Label, ...] = Field(min_length=1)
    ice_channel: Label
    """The channel whose mask is the ice percentage."""
    threshold: float = Field(gt=0.0, lt=1.0)
    min_part_nm2: float = Field(ge=0.0)
    """Connected parts of ice under this area are dropped."""
    calibration: Calibration
    feature_sizes: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = ()
    """How many means of the encoder the graph gives at each depth; none: it gives no features."""
    memory_channels: int = Field(default=0, ge=0, le=128)
    """What one tilt leaves to its neighbours; 0: the graph knows single tilts alone."""
    files: dict[FileName, BundleFile]
    training: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_names(self) -> Manifest:
        if len(set(self.channels)) != len(self.channels):
            raise ValueError("channels must differ from each other")
        if self.ice_channel not in self.channels:
            raise ValueError(f"ice_channel {self.ice_channel!r} is not one of the channels")
        if isinstance(self.calibration, EvidenceCalibration):
            if self.ice_channel not in self.calibration.areas:
                raise ValueError(f"calibration.areas must name the ice_channel {self.ice_channel}")
            unknown = sorted(set(self.calibration.areas) - set(self.channels))
            if unknown:
                raise ValueError(f"calibration.areas names {unknown[0]!r}, which is no channel")
        if GRAPH not in self.files:
            raise ValueError(f"files must name {GRAPH}")
        return self


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files were all there and as the manifest says when it was loaded."""

    directory: Path
    manifest: Manifest

    @classmethod
    def load(cls, where: str | Path) -> Bundle:
        """Open the folder `where` ("default": the shipped one) and check every file in it.

        Raises `BundleError` for whatever is missing, damaged, foreign, or of another version.
        """
        directory = DEFAULT_DIRECTORY if where == "default" else Path(where)
        if not directory.is_dir():
            raise BundleError(
                f"Model bundle '{directory}' is not a folder; name one that holds {MANIFEST}, "
                "or 'default'."
            )
        bundle = cls(directory, read_manifest(directory / MANIFEST))
        for name in bundle.manifest.files:
            content = bundle.read(name)
            if name.endswith(".onnx"):
                _check_graph(directory / name, content, bundle.manifest)
        return bundle

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> str:
        return self.manifest.version

    def read(self, name: str) -> bytes:
        """Read a file of the bundle and check its hash; only these very bytes may be used.

        Files are read anew each time: kept, the weights would double the daemon's memory.
        Raises `BundleError`.
        """
        expected = self.manifest.files.get(name)
        if expected is None:
            raise BundleError(f"Model bundle '{self.directory}' has no file {name}; export it.")
        path = self.directory / name
        content = _read_regular(path, expected.bytes)
        if len(content) != expected.bytes or hashlib.sha256(content).hexdigest() != expected.sha256:
            raise BundleError(
                f"'{path}' is not what {MANIFEST} says (size or SHA-256 differ); copy the whole "
                "bundle again."
            )
        return content


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a bundle and look at no other file of it; raises `BundleError`."""
    content = _read_regular(path, _MAX_MANIFEST_BYTES)
    try:
        raw = json.loads(content, parse_constant=_refuse_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"'{path}' is not JSON ({error}); copy the bundle again.") from error
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if schema != SCHEMA:
        raise BundleError(
            f"'{path}' has the schema {schema!r} and this program reads {SCHEMA!r}; use a bundle "
            "that was exported for this version."
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = _key(first["loc"], first["type"])
        reason = first["msg"].removeprefix("Value error, ")
        raise BundleError(f"'{path}': {key or 'manifest'}: {reason}; export it again.") from error


def _key(place: tuple[int | str, ...], kind: str) -> str:
    """Name a key as it stands in the file, without the kind by which a calibration was read."""
    parts = [str(part) for part in place]
    if parts[:1] == ["calibration"]:
        del parts[1:2]
        parts += ["kind"] * kind.startswith("union_tag")
    return ".".join(parts)


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse_number(text)
    return value


def _read_regular(path: Path, limit: int) -> bytes:
    """Read at most one byte more than `limit` of a file that is neither a link nor a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BundleError(f"'{path}' is not a file; copy the bundle again.")
            content: bytes = file.read(limit + 1)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BundleError(
                f"'{path}' is a symbolic link; a bundle holds plain files, copy it there."
            ) from error
        raise BundleError(
            f"'{path}' cannot be read ({error.strerror}); copy the bundle again."
        ) from error
    return content


def _check_graph(path: Path, content: bytes, manifest: Manifest) -> None:
    try:
        graph = summarise(content)
    except GraphError as error:
        raise BundleError(f"'{path}' is no ONNX graph: {error}; export it again.") from error
    if graph.has_external_data:
        raise BundleError(f"'{path}' keeps weights in other files; export it as a single file.")
    inputs, outputs = _ports(manifest)
    for kind, found, wanted in (
        ("input", graph.inputs, inputs),
        ("output", graph.outputs, outputs),
    ):
        if sorted(port.name for port in found) != sorted(wanted):
            raise BundleError(
                f"'{path}' must have the {kind}s {', '.join(wanted)} and has "
                f"{', '.join(port.name for port in found) or 'none'}; export it again."
            )
        for port in found:
            _check_port(path, port, *wanted[port.name])


def _ports(manifest: Manifest) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]]:
    """Tell what a graph takes and gives by its manifest: rank and channels by name."""
    channels, memory = len(manifest.channels), manifest.memory_channels
    inputs = {"picture": (4, 1), "valid": (4, 1)}
    outputs = {"probability": (4, channels), "area": (2, channels)}
    if manifest.feature_sizes:
        outputs["features"] = (2, sum(manifest.feature_sizes))
    if memory:
        inputs |= {"memory": (4, memory), "memory_weight": (4, 1)}
        outputs["memory_left"] = (4, memory)
    return inputs, outputs


def _check_port(path: Path, port: Port, rank: int, second: int) -> None:
    shape = port.shape
    fits = shape is None or (
        len(shape) == rank
        and shape[1] in (None, second)
        and all(side is None for at, side in enumerate(shape) if at != 1)
    )
    if port.element != FLOAT or not fits:
        sides = "batch, " + str(second) + (", height, width" if rank == 4 else "")
        raise BundleError(
            f"'{path}': {port.name} must be float32 with the free shape ({sides}); export it again."
        )


def manifest_entry(content: bytes) -> dict[str, Any]:
    """Describe a file for `files` of a manifest."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
