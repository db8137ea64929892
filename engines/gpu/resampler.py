"""Averages raw images on the GPU: the same as `engines.preprocess`, to a few parts in a million."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from engines.errors import BackendError
from engines.gpu.plan_runner import PlanRunner
from engines.preprocess import area_shares

GRAPHS = ("uint8", "int16", "uint16", "float32")
"""Kinds of pixels that are averaged on the GPU; others are averaged on the CPU."""
_NATIVE_PX = (32, 4096, 16384)
_WORKING_PX = (1, 608, 4096)
TOLERANCE = 2e-5
"""Largest difference from the CPU, as a share of the largest pixel: sums in another order."""
CHECKED_LINES = 3
"""Rows, and columns, of each picture that are averaged on the CPU too."""
_MOST_OFF = 1e-3
_PROVED_PX = 640
LEAST_PIXELS = 1 << 20
"""Smaller images are averaged on the CPU in less time than a copy takes."""


def graph_path(kind: str) -> Path:
    """Where the graph for pixels of a kind lies."""
    return Path(__file__).parent / "graphs" / f"area_average_{kind}.onnx"


def shapes_of(kind: str, name: str) -> Sequence[tuple[int, ...]]:
    """Tell the least, the usual and the largest shape of an input of a graph."""
    pairs = () if kind in ("uint8", "float32") else (2,)
    if name == "raw":
        return [(native, native, *pairs) for native in _NATIVE_PX]
    both = zip(_WORKING_PX, _NATIVE_PX, strict=True)
    return [(small, large) if name == "down" else (large, small) for small, large in both]


class GpuResampler:
    """Brings raw images down to working size on the GPU; used by one thread.

    `runner_of` loads the plan for a kind of pixels, when the first image of that kind comes.
    """

    def __init__(self, runner_of: Callable[[str], PlanRunner]) -> None:
        self._runner_of = runner_of
        self._generator = np.random.default_rng()
        self._runners: dict[str, PlanRunner] = {}

    def takes(self, image: NDArray[Any], shape: tuple[int, int]) -> bool:
        """Whether an image is averaged here: large, of a known kind, and finer than wanted."""
        return (
            image.dtype.name in GRAPHS
            and image.dtype.isnative
            and image.size >= LEAST_PIXELS
            and all(small <= large for small, large in zip(shape, image.shape, strict=True))
            and min(image.shape) >= _NATIVE_PX[0]
            and max(image.shape) <= _NATIVE_PX[-1]
            and max(shape) <= _WORKING_PX[-1]
        )

    def __call__(self, image: NDArray[Any], shape: tuple[int, int]) -> NDArray[float32]:
        """Average an image to (rows, columns) float32; raises `BackendError` as a backend does."""
        kind = image.dtype.name
        if kind not in self._runners:
            self._runners[kind] = self._runner_of(kind)
        down, across = (shares_of(n, m) for n, m in zip(image.shape, shape, strict=True))
        turned = _turned_shares_of(image.shape[1], shape[1])
        given = {"raw": _as_bytes(image), "down": down, "across": turned}
        picture = self._runners[kind].run(given)["picture"]
        self._check_lines(picture, image, (down, across))
        return picture

    def prove(self) -> None:
        """Load every plan and try it once; raises `BackendError` as a call does."""
        for kind in GRAPHS:
            image = self._generator.integers(0, 120, (_PROVED_PX, _PROVED_PX + 32)).astype(kind)
            self(image, (_PROVED_PX // 3, _PROVED_PX // 5))

    def _check_lines(
        self, picture: NDArray[float32], image: NDArray[Any], shares: tuple[NDArray[float32], ...]
    ) -> None:
        """Compare some rows and columns, others each time, with what the CPU makes of them.

        An image with infinite pixels gives no finite picture, and is mended on the CPU afterwards.
        Raises `BackendError`.
        """
        if not np.isfinite(picture).all() and not np.isfinite(image).all():
            return
        down, across = shares
        for found, raw, along, other in (
            (picture, image, down, across),
            (picture.T, image.T, across, down),
        ):
            chosen = self._generator.integers(0, len(found), CHECKED_LINES)
            expected = np.stack([_line(raw, along[line]) @ other.T for line in chosen])
            unit = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
            if not np.abs(found[chosen] - expected).max() <= _MOST_OFF * unit:
                raise BackendError(
                    "The GPU averages pixels otherwise than the CPU: what it says now is not "
                    "published."
                )

    def close(self) -> None:
        """Give the plans back."""
        for runner in self._runners.values():
            runner.close()
        self._runners.clear()


def _line(image: NDArray[Any], shares: NDArray[float32]) -> NDArray[float32]:
    """Average the native rows that have a share in one working row."""
    first, last = np.flatnonzero(shares)[[0, -1]]
    return shares[first : last + 1] @ image[first : last + 1].astype(float32)


@functools.lru_cache(maxsize=4)
def shares_of(native: int, working: int) -> NDArray[float32]:
    """Give the share of each native line in each working one: (working, native), read-only."""
    first, some = area_shares(native, working)
    shares = np.zeros((working, native), float32)
    np.put_along_axis(shares, first[:, None] + np.arange(some.shape[1]), some, 1)
    return _fixed(shares)


@functools.lru_cache(maxsize=4)
def _turned_shares_of(native: int, working: int) -> NDArray[float32]:
    return _fixed(np.ascontiguousarray(shares_of(native, working).T))


def _fixed(array: NDArray[float32]) -> NDArray[float32]:
    """Let nobody change an array that is kept: it goes up to the GPU once."""
    array.flags.writeable = False
    return array


def _as_bytes(image: NDArray[Any]) -> NDArray[Any]:
    """Look at 16-bit pixels as pairs of bytes, the lower one first."""
    whole = np.ascontiguousarray(image)
    if whole.dtype.itemsize != 2:
        return whole
    low_first = whole.astype(whole.dtype.newbyteorder("<"), copy=False)
    return low_first.view(uint8).reshape(*image.shape, 2)
