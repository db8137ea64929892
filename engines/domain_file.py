"""The file of a bundle that holds what the out-of-domain monitor knows."""

from __future__ import annotations

import io
import struct
import tokenize
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from engines.bundle import Bundle
from engines.domain_monitor import RED, DomainMonitor, Line, View
from engines.domain_physics import PHYSICS
from engines.errors import BundleError

DOMAIN = "domain.npz"
MAX_BYTES = 2 << 20
_MAX_UNPACKED_BYTES = 16 << 20
_LIMITS = ("unfamiliar_limit", "amber")
_ARRAYS = ("centre", "scale", "axes", "spread")

_UNREADABLE = (
    *(ValueError, TypeError, KeyError, OSError, EOFError, RuntimeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, MemoryError),
)
"""What damaged archives and arrays make numpy and zipfile raise."""


class _FileError(ValueError):
    """Raised when the content is not what a monitor needs."""


def monitor_of(bundle: Bundle) -> DomainMonitor | None:
    """Read the monitor of a bundle; None of a bundle that has none.

    Raises `BundleError` for a file that is damaged or was fitted to another network.
    """
    if DOMAIN not in bundle.manifest.files:
        return None
    try:
        return unpacked(bundle.read(DOMAIN), bundle.manifest.feature_sizes)
    except _FileError as error:
        raise BundleError(
            f"'{bundle.directory / DOMAIN}' is no monitor of this bundle: {error}; fit it again "
            "with 'python -m engines.learning.domain'."
        ) from error


def packed(monitor: DomainMonitor) -> bytes:
    """Write a monitor: numbers alone, float32, in numpy's own format."""
    arrays: dict[str, Any] = {name: float32(getattr(monitor, name)) for name in _LIMITS}
    for number, view in enumerate(monitor.views):
        for name in (*_ARRAYS, "middle", "span"):
            arrays[f"view_{number}_{name}"] = np.asarray(getattr(view, name), float32)
    for rule, line in (("foreign", monitor.foreign), ("inverted", monitor.inverted)):
        for name in ("weights", "middle", "span"):
            arrays[f"{rule}_{name}"] = np.asarray(getattr(line, name), float32)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def unpacked(content: bytes, feature_sizes: tuple[int, ...]) -> DomainMonitor:
    """Read what `packed` wrote; raises ValueError where it does not fit the features."""
    arrays = _arrays(content)
    sizes = (*feature_sizes, len(PHYSICS))
    views = tuple(_view(arrays, number, size) for number, size in enumerate(sizes))
    width = sum(len(view.axes) for view in views) + len(views)
    monitor = DomainMonitor(
        views=views,
        unfamiliar_limit=_positive(arrays, "unfamiliar_limit"),
        foreign=_line(arrays, "foreign", width),
        inverted=_line(arrays, "inverted", width),
        amber=_positive(arrays, "amber"),
    )
    if monitor.amber > RED:
        raise _FileError(f"amber is {monitor.amber} and must not be above {RED}")
    if arrays:
        raise _FileError(f"it holds {min(arrays)}, which belongs to no part of it")
    return monitor


def _arrays(content: bytes) -> dict[str, NDArray[float32]]:
    """Unpack the arrays, none larger than a monitor can be."""
    if len(content) > MAX_BYTES:
        raise _FileError(f"it has {len(content)} bytes, more than {MAX_BYTES}")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked_bytes = sum(entry.file_size for entry in archive.infolist())
        if unpacked_bytes > _MAX_UNPACKED_BYTES:
            raise _FileError(f"it unpacks to more than {_MAX_UNPACKED_BYTES} bytes")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except _FileError:
        raise
    except _UNREADABLE as error:
        raise _FileError(f"it cannot be unpacked ({type(error).__name__})") from error
    for name, values in arrays.items():
        if not isinstance(values, np.ndarray) or values.dtype != float32:
            raise _FileError(f"{name} is not float32")
        if not np.isfinite(values).all():
            raise _FileError(f"{name} holds NaN or infinity")
    return arrays


def _view(arrays: dict[str, NDArray[float32]], number: int, size: int) -> View:
    axes = _taken(arrays, f"view_{number}_axes", (None, size))
    view = View(
        centre=_taken(arrays, f"view_{number}_centre", (size,)),
        scale=_taken(arrays, f"view_{number}_scale", (size,)),
        axes=axes,
        spread=_taken(arrays, f"view_{number}_spread", (len(axes) + 1,)),
        middle=float(_taken(arrays, f"view_{number}_middle", ())),
        span=_positive(arrays, f"view_{number}_span"),
    )
    if len(axes) == 0 or not (view.scale > 0).all() or not (view.spread > 0).all():
        raise _FileError(f"view_{number} has no axes, or a spread that is not above 0")
    return view


def _line(arrays: dict[str, NDArray[float32]], rule: str, width: int) -> Line:
    return Line(
        weights=_taken(arrays, f"{rule}_weights", (width,)),
        middle=float(_taken(arrays, f"{rule}_middle", ())),
        span=_positive(arrays, f"{rule}_span"),
    )


def _positive(arrays: dict[str, NDArray[float32]], name: str) -> float:
    value = float(_taken(arrays, name, ()))
    if value <= 0.0:
        raise _FileError(f"{name} is {value} and must be above 0")
    return value


def _taken(
    arrays: dict[str, NDArray[float32]], name: str, shape: tuple[int | None, ...]
) -> NDArray[float32]:
    """Take an array of this shape (None: any length) out of those that were read."""
    values = arrays.pop(name, None)
    if values is None:
        raise _FileError(f"it has no {name}")
    fits = len(values.shape) == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, values.shape, strict=True)
    )
    if not fits:
        raise _FileError(f"{name} has the shape {values.shape} and not {shape}")
    return values
