"""What `icewatch simulate` is asked for, checked before anything is written."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from monitor.errors import ConfigError

STACKS = ("serialem", "serialem-bidirectional", "serialem-resumed", "pacetomo")
FRAMES = ("frames-tiff", "frames-tiff-4bit", "frames-mrc", "frames-eer")
TOMOGRAPHY = ("tomography5", "tomography5-5.7", "tomography5-eer")
LAYOUTS = (*STACKS, *FRAMES, *TOMOGRAPHY, "mixed", "custom")
_EVERYWHERE = frozenset(LAYOUTS)
FAULTS = {
    "stall": ("the share stands still for 20 s while a tilt is written", _EVERYWHERE),
    "cut": ("the last tilt of the first series ends half way, for ever", _EVERYWHERE),
    "blink": ("the folder of the session is gone for 4 s and comes back", _EVERYWHERE),
    "reorder": (
        "a stack is sorted once more at the end; the mdoc of a movie comes before it",
        frozenset((*STACKS, *FRAMES, "mixed")),
    ),
    "late-mdoc": (
        "every second mdoc comes 12 s after its tilt",
        frozenset((*STACKS, *FRAMES, "mixed")),
    ),
    "no-mdoc": ("movies have no mdoc", frozenset((*FRAMES, *TOMOGRAPHY, "mixed"))),
    "overwrite": (
        "one tilt of each series is written again: a section taken anew, a movie copied anew",
        _EVERYWHERE,
    ),
    "rsync": (
        "movies come under a temporary name",
        frozenset((*FRAMES, *TOMOGRAPHY, "custom", "mixed")),
    ),
}
LARGEST_SIZE_PX = 16_384


@dataclass(frozen=True, slots=True)
class Request:
    """A session to write; `refuse_wrong` says what is wrong with it."""

    out: Path
    layout: str = "serialem"
    series: int = 3
    tilts: int = 41
    size_px: int = 1024
    pixel_size_angstrom: float = 3.375
    interval_s: float = 26.0
    speed: float = 1.0
    images: Path | None = None
    ice_percent: tuple[float, ...] = ()
    """Wanted of each series in turn; empty: the recorded lamellae in their order."""
    faults: tuple[str, ...] = ()
    seed: int = 0
    write_mb_per_s: float | None = None
    truth: Path | None = None
    append: bool = False


def refuse_wrong(request: Request) -> None:
    """Raise `ConfigError` for a layout, a fault or a place that cannot be."""
    _one_of("--layout", request.layout, LAYOUTS)
    for fault in request.faults:
        _one_of("--fault", fault, FAULTS)
        if request.layout not in FAULTS[fault][1]:
            layouts = ", ".join(one for one in LAYOUTS if one in FAULTS[fault][1])
            raise ConfigError(
                f"--fault {fault}: cannot happen with --layout {request.layout}; it can with "
                f"{layouts}"
            )
    refuse_place("OUT", request.out, append=request.append)
    if request.truth is not None:
        refuse_inside("--truth", request.truth, request.out)


def _one_of(option: str, value: str, known: Iterable[str]) -> None:
    known = tuple(known)
    if value not in known:
        nearest = difflib.get_close_matches(value, known, 1, 0.5)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"choose from {', '.join(known)}"
        raise ConfigError(f"{option} {value}: there is no such choice; {hint}")


def refuse_place(name: str, out: Path, *, append: bool) -> None:
    """Raise `ConfigError` unless `out` is a directory to write in: a new one, or an empty one."""
    try:
        if not out.exists():
            return
        if not out.is_dir():
            raise ConfigError(f"{name} {out}: is a file; name a directory")
        if not append and any(out.iterdir()):
            raise ConfigError(f"{name} {out}: is not empty; name a new directory")
    except OSError as error:
        raise ConfigError(f"{name} {out}: cannot be used: {error.strerror}") from error


def refuse_inside(option: str, path: Path, out: Path) -> None:
    """Raise `ConfigError` where a file would lie below the directory that is written."""
    if path.resolve().is_relative_to(out.resolve()):
        raise ConfigError(f"{option} {path}: lies below {out}; a microscope would not write it")
