"""The gain reference of a camera, loaded anew when its file changes, done without when it fails."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from engines.errors import PixelsError
from monitor.model import FileStat
from monitor.settings import GainSettings
from monitor.sources.at_rest import AtRest

if TYPE_CHECKING:
    from engines.readers.gain import Gain

logger = logging.getLogger(__name__)

GAIN_MISSING = "gain_missing"
"""Flag of a tilt that should have been corrected and could not be."""


class GainReference:
    """Gives the reference as it is now; without one, movies are read as they are."""

    def __init__(self, settings: GainSettings, at_rest: AtRest) -> None:
        """Take the settings, and what knows whether the file is being written to."""
        self._settings = settings
        self._at_rest = at_rest
        self._loaded: FileStat | None = None
        self._gain: Gain | None = None
        self._told = ""
        self.is_being_written()  # from now on it is known whether the file changes

    def is_being_written(self) -> bool:
        """Whether the first reference is still to come, and on its way."""
        path = self._settings.reference
        look = self._at_rest.look(path) if path is not None else None
        return look is not None and look.stat is not None and not (look.at_rest or self._loaded)

    def for_images(self, columns: int, rows: int) -> tuple[Gain | None, tuple[str, ...]]:
        """Give what corrects images of this size (px), and the flags that its lack deserves."""
        if self._settings.reference is None:
            return None, ()
        gain = self._current()
        if gain is not None and not _fits(gain.shape, (rows, columns)):
            self._tell(
                f"the gain reference {str(self._settings.reference)!r} has {gain.shape[1]} x "
                f"{gain.shape[0]} pixels and does not fit movies of {columns} x {rows}; they are "
                "read uncorrected"
            )
            gain = None
        return gain, (() if gain is not None else (GAIN_MISSING,))

    def _current(self) -> Gain | None:
        path = self._settings.reference
        assert path is not None
        look = self._at_rest.look(path)
        if look.stat is None:
            self._loaded = self._gain = None
            self._tell(f"the gain reference {str(path)!r} is not there; movies are uncorrected")
        elif look.stat != self._loaded and look.at_rest:
            self._load(look.stat)
        return self._gain

    def _load(self, now: FileStat) -> None:
        from engines.readers.gain import Gain

        settings = self._settings
        assert settings.reference is not None
        self._loaded, self._gain = now, None
        try:
            self._gain = Gain.load(
                settings.reference,
                operation=settings.operation,
                rotate_deg=settings.rotate_deg,
                flip=settings.flip,
            )
        except PixelsError as error:
            self._tell(f"{error}; movies are read uncorrected")
        else:
            logger.info("the gain reference %r is loaded", str(settings.reference))
            self._told = ""

    def _tell(self, sentence: str) -> None:
        if sentence != self._told:
            logger.warning("%s", sentence)
        self._told = sentence


def _fits(reference: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether the sizes are equal, or one is exactly twice the other."""
    (rows, columns), (height, width) = reference, image
    return (height, width) in (
        (rows, columns),
        (2 * rows, 2 * columns),
        (rows / 2, columns / 2),
    )
