"""The same exposure as section of a stack and as movie counts once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from monitor.model import Tilt, TiltId
from monitor.twins import is_twin
from tests.builders import tilt

MOVIE = "L1_003_3.0.tif"


def section(**changes: object) -> Tilt:
    one = replace(tilt(3.02, acquired_at="2026-01-01T10:00:00"), section=3, movie=MOVIE)
    return replace(one, **changes)  # type: ignore[arg-type]


def movie(**changes: object) -> Tilt:
    one = replace(
        tilt(3.0, acquired_at="2026-01-01T10:00:20"),
        id=TiltId("s1/frames/L1", 3.0, None, MOVIE),
        path=f"s1/frames/{MOVIE}",
        movie=MOVIE,
    )
    return replace(one, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (section(), movie(), True),
        (section(acquired_at=None), movie(), True),
        (section(), movie(acquired_at="2026-01-01T09:58:00"), True),
        (section(), movie(acquired_at="2026-01-01T10:02:01"), False),
        (section(angle_deg=3.1), movie(), True),
        (section(angle_deg=3.12), movie(), False),
        (section(angle_deg=None), movie(), False),
        (section(angle_deg=None), movie(angle_deg=None), True),
        (section(session="s2"), movie(), True),
        (section(session="s2", acquired_at=None), movie(), False),
        (section(session="2026-01-01_09.00.00", path="L1.mrc"), movie(), True),
        (section(session="x", path="L1.mrc", acquired_at="2026-01-02T10:00:00"), movie(), False),
        (section(movie="L1_004_3.0.tif"), movie(), False),
        (section(movie=""), movie(movie=""), False),
        (section(), section(section=4), False),
        (movie(), movie(path=f"s1/again/{MOVIE}"), False),
        (section(acquired_at=None), movie(path=MOVIE), True),
        (section(acquired_at=None), movie(path=f"s1/a/b/{MOVIE}"), True),
        (section(acquired_at=None, path="s1/stacks/L1.mrc"), movie(), True),
        (section(acquired_at=None, path="s1/a/L1.mrc"), movie(path=f"s1/b/{MOVIE}"), False),
        (section(acquired_at=None, path="s1/a/L1.mrc"), movie(path=f"s1/b/frames/{MOVIE}"), False),
        (section(path="s1/stacks/L1.mrc"), movie(), True),
    ],
)
def test_when_two_tilts_are_one_exposure(one: Tilt, other: Tilt, same: bool) -> None:
    assert is_twin(one, other) == is_twin(other, one) == same
