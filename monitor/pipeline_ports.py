"""What the pipeline works with: who reads a tilt, and who takes what was committed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from engines.icemap import Flag, IceMap
from engines.segmenter import Neighbours
from monitor.sinks.protocol import Outgoing


class TiltReader(Protocol):
    """What the pipeline wants of `engines.segmenter.Segmenter`."""

    @property
    def bundle_name(self) -> str: ...

    @property
    def bundle_version(self) -> str: ...

    @property
    def backend_name(self) -> str: ...

    def read(
        self,
        image: NDArray[Any],
        pixel_size_angstrom: float | None,
        neighbours: Neighbours | None = None,
        known_flags: tuple[Flag, ...] = (),
    ) -> IceMap:
        """Measure the ice of one image of a series; raises `EngineError`."""
        ...


class Outbox(Protocol):
    """Where committed messages go on."""

    def put(self, messages: Sequence[Outgoing]) -> None:
        """Take messages over; never blocks."""
        ...
