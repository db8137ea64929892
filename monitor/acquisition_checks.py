"""What can be wrong with [acquisition] beyond the kind of its values: layout, pattern, table, gain.

Each check raises `ConfigError` with one line that begins with the key.
"""

from __future__ import annotations

from pathlib import Path

from engines.errors import PixelsError
from monitor.errors import ConfigError
from monitor.settings import AcquisitionSettings, CustomSettings
from monitor.sources.custom import read_table
from monitor.sources.name_pattern import NamePattern, is_fast_enough

_DIGITAL_MICROGRAPH = (".dm3", ".dm4")


def check_acquisition(settings: AcquisitionSettings) -> None:
    """Refuse what would leave the daemon without tilts, or with wrong ones."""
    _check_layout(settings)
    if settings.custom.pattern is not None:
        _check_pattern(settings.custom.pattern)
    if settings.custom.table is not None:
        _check_table(settings.custom.table)
    if settings.gain.reference is not None:
        _check_gain(settings.gain.reference)


def _check_layout(settings: AcquisitionSettings) -> None:
    given = [key for key in ("pattern", "table") if getattr(settings.custom, key) is not None]
    if settings.layout != "custom":
        if settings.custom != CustomSettings():
            raise ConfigError(
                f"acquisition.custom.{given[0]}: counts only with acquisition.layout = 'custom'; "
                "set that, or remove it"
            )
        return
    if not given:
        raise ConfigError(
            "acquisition.layout: 'custom' needs acquisition.custom.pattern or "
            "acquisition.custom.table; add one"
        )
    if len(given) > 1:
        raise ConfigError(
            "acquisition.custom.table: cannot be used beside acquisition.custom.pattern; remove "
            "one of the two"
        )


def _check_pattern(text: str) -> None:
    key = "acquisition.custom.pattern"
    try:
        NamePattern(text)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error
    if not is_fast_enough(text):
        raise ConfigError(
            f"{key}: takes far too long on names that do not fit; avoid repeats within repeats, "
            "such as (a+)+"
        )


def _check_table(path: Path) -> None:
    key = "acquisition.custom.table"
    try:
        table = read_table(path)
    except ConfigError as error:
        raise ConfigError(f"{key}: '{path}' {error}") from error
    if table.bad_lines:
        raise ConfigError(f"{key}: '{path}', {table.bad_lines[0]}")


def _check_gain(path: Path) -> None:
    key = "acquisition.gain.reference"
    if path.suffix.lower() in _DIGITAL_MICROGRAPH:
        raise ConfigError(
            f"{key}: '{path}' is a DigitalMicrograph file, which is not read; convert it with "
            "IMOD's dm2mrc, and name the MRC file"
        )
    from engines.readers.movie import read_movie_header

    try:
        header = read_movie_header(path)
    except PixelsError as error:
        raise ConfigError(f"{key}: {error}; name an MRC or TIFF file ('{path}')") from error
    if not header.readable or not header.is_whole:
        raise ConfigError(f"{key}: '{path}' is cut, or holds pixels of a kind that is not read")
