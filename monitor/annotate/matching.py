"""The tilts that annotations are of: found by name, looked at for size."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from numpy.typing import NDArray

from engines.annotation import AnnotationError
from engines.annotation.model import TiltName
from engines.errors import EngineError
from monitor.annotate.reading import FromFiles
from monitor.errors import MonitorError, SourceError
from monitor.model import Tilt
from monitor.sources import Source


@dataclass(frozen=True, slots=True)
class LabelledTilt:
    """A tilt that somebody labelled a picture of."""

    file: Path
    tilt: Tilt
    source: Source
    shape: tuple[int, int]
    """Rows, columns."""

    @property
    def pixel_size_angstrom(self) -> float | None:
        """As its file tells."""
        return self.tilt.pixel_size_angstrom

    def read(self) -> NDArray[Any]:
        """Read its pixels; raises `MonitorError`."""
        return _pixels(self.file, self.tilt, self.source)


def tilts_named(
    paths: tuple[Path, ...], names: Collection[TiltName]
) -> dict[TiltName, LabelledTilt]:
    """Find the tilts that have one of these names below paths.

    Raises AnnotationError where two have one name, `MonitorError` where one cannot be read.
    """
    found: dict[TiltName, LabelledTilt] = {}
    for file, tilt, source in FromFiles(paths).tilts():
        name = TiltName(PurePosixPath(tilt.path).stem, tilt.section)
        if name not in names:
            continue
        if name in found:
            raise AnnotationError(
                f"'{found[name].file}' and '{file.path}' both have the name of one picture "
                f"({name.stem}_{name.section:03d}.png); name the one that was labelled by --tilts."
            )
        rows, columns = _pixels(file.path, tilt, source).shape
        found[name] = LabelledTilt(file.path, tilt, source, (rows, columns))
    return found


def _pixels(file: Path, tilt: Tilt, source: Source) -> NDArray[Any]:
    try:
        return source.pixels(tilt)
    except (SourceError, EngineError) as error:
        raise MonitorError(f"{file}: {error}") from error
    except OSError as error:
        raise MonitorError(f"{file}: cannot be read: {error.strerror}") from error
