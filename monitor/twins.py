"""One exposure that lands twice, as section of a stack and as movie of its own, counts once."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import PurePosixPath

from monitor.model import Tilt

_ANGLES_APART_DEG = 0.1
"""A movie's name gives its angle to a tenth of a degree, its mdoc to a hundredth."""
_OF_MOVIES = re.compile(r"frames|movies|fractions|raw|eer", re.IGNORECASE)
"""A folder of this name beside that of the stacks holds their movies, and not another grid."""
_TIMES_APART_S = 120.0
"""The two are written by different programs, each with a clock of its own."""


def is_twin(tilt: Tilt, earlier: Tilt) -> bool:
    """Whether two tilts are the same exposure, once as section of a stack and once as movie.

    Both name the same movie and nearly the same angle; then their times decide, where both are
    known: a microscope takes one exposure at a time. Else they have to be of one session, and
    their folders decide.
    """
    if not tilt.movie or tilt.movie != earlier.movie:
        return False
    return (
        is_movie(tilt) != is_movie(earlier)
        and _angles_agree(tilt.angle_deg, earlier.angle_deg)
        and _times_or_folders_agree(tilt, earlier)
    )


def is_movie(tilt: Tilt) -> bool:
    """Whether the pixels of a tilt come from the movie of its frames, and not from a stack."""
    return PurePosixPath(tilt.path).name == tilt.movie


def _may_be_of_one_session(one: Tilt, other: Tilt) -> bool:
    """Whether the sessions are the same; the name of one outside any folder says nothing."""
    loose = any("/" not in tilt.path for tilt in (one, other))
    return loose or one.session == other.session


def _angles_agree(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= _ANGLES_APART_DEG + 1e-6


def _times_or_folders_agree(one: Tilt, other: Tilt) -> bool:
    if one.acquired_at and other.acquired_at:
        apart = datetime.fromisoformat(one.acquired_at) - datetime.fromisoformat(other.acquired_at)
        return abs(apart.total_seconds()) <= _TIMES_APART_S
    if not _may_be_of_one_session(one, other):
        return False
    here, there = PurePosixPath(one.path).parent, PurePosixPath(other.path).parent
    if here.is_relative_to(there) or there.is_relative_to(here):
        return True
    movies = here if is_movie(one) else there
    return here.parent == there.parent and bool(_OF_MOVIES.search(movies.name))
