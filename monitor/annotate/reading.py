"""Reads tilts from files, with or without the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engines.errors import BackendError, BundleError, EngineError
from engines.icemap import IceMap
from engines.segmenter import Segmenter
from monitor.annotate.candidates import Candidate, PackedMask
from monitor.errors import ConfigError, MonitorError, SourceError
from monitor.model import FileStat, Landed, Tilt
from monitor.network import load_segmenter
from monitor.readings import missing_of, reading_of
from monitor.recent_series import RecentSeries
from monitor.score_files import FileToScore, complain, files_to_score, landed, prefixed
from monitor.settings import AcquisitionSettings
from monitor.sources import Source, all_sources, tilts_on_disk

_LONG_AGO_S = 1e6


def load_network(bundle: str) -> Segmenter:
    """Load the network of a bundle; raises `ConfigError` or `MonitorError`."""
    try:
        return load_segmenter(bundle, "auto")
    except BundleError as error:
        raise ConfigError(f"--model {bundle}: {error}") from error
    except BackendError as error:
        raise MonitorError(str(error)) from error


@dataclass(frozen=True, slots=True)
class FromFiles:
    """Tilts that lie in files and folders, as `icewatch score` finds them."""

    paths: tuple[Path, ...]
    pixel_size_angstrom: float | None = None

    def measured(self, segmenter: Segmenter) -> Iterator[Candidate]:
        """Measure every tilt; what cannot be read is told on standard error and passed over."""
        model = (segmenter.bundle_name, segmenter.bundle_version, segmenter.backend_name)
        recent = RecentSeries()
        for file, tilt, source in self.tilts():
            try:
                image = source.pixels(tilt)
            except (SourceError, EngineError, OSError) as error:
                complain(file.path, _why(error))
                continue
            below = prefixed(tilt, file.prefix)
            series = recent.at(below)
            found = _read(segmenter, image, below, series)
            reading = reading_of(found, model, tilt.flags, series.occupancy_percent)
            yield Candidate(
                below,
                reading,
                file.root,
                tilt.path,
                PackedMask.of(found.ice) if found.percent is not None else None,
                PackedMask.of(found.valid) if found.percent is not None else None,
            )

    def tilts(self) -> Iterator[tuple[FileToScore, Tilt, Source]]:
        """Give every tilt, unread, with the source of its pixels."""
        for file in files_to_score(self.paths):
            try:
                for tilt, source in tilts_on_disk(file.root, landed(file)):
                    if tilt.pixel_size_angstrom is None:
                        tilt = replace(tilt, pixel_size_angstrom=self.pixel_size_angstrom)
                    yield file, tilt, source
            except (SourceError, EngineError, OSError) as error:
                complain(file.path, _why(error))


def _read(segmenter: Segmenter, image: NDArray[Any], tilt: Tilt, series: Any = None) -> IceMap:
    try:
        return segmenter.read(image, tilt.pixel_size_angstrom, series, missing_of(tilt))
    except BackendError as error:
        raise MonitorError(f"{tilt.path}: {error}") from error


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


class Pixels:
    """Reads the pixels of tilts that were proposed, once more."""

    def __init__(self, acquisition: AcquisitionSettings | None = None) -> None:
        """Take the settings that the daemon reads with; none: as `icewatch score` reads."""
        self._acquisition = acquisition

    def of(self, one: Candidate) -> NDArray[Any]:
        """Read a tilt; raises `SourceError`, `EngineError` or `OSError`."""
        stat = one.file.stat()
        seen = FileStat(stat.st_size, stat.st_mtime_ns, stat.st_ino)
        as_landed = Landed(one.file, one.path, seen, 10**6, _LONG_AGO_S)
        for tilt, source in self._tilts(one.root, as_landed):
            if tilt.section == one.tilt.section and tilt.path == one.path:
                return source.pixels(tilt)
        raise SourceError(f"has no section {one.tilt.section} any more", "section")

    def _tilts(self, root: Path, as_landed: Landed) -> Iterator[tuple[Tilt, Source]]:
        if self._acquisition is None:
            yield from tilts_on_disk(root, as_landed)
            return
        source = all_sources(root, self._acquisition)
        for tilt in source.new_tilts(as_landed, lambda tilt_id: False):
            yield tilt, source


def ice_of(
    segmenter: Segmenter, candidate: Candidate, image: NDArray[Any]
) -> tuple[PackedMask | None, PackedMask | None]:
    """Give ice and valid area of a tilt: as they were read, else without its neighbours."""
    if candidate.ice is not None or candidate.valid is not None:
        return candidate.ice, candidate.valid
    found = _read(segmenter, image, candidate.tilt)
    if found.percent is None:
        return None, None
    return PackedMask.of(found.ice), PackedMask.of(found.valid)
