"""A finished session lands again: byte for byte, in its order, with its timing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from engines.readers.mrc import write_mrc
from monitor.simulate.finished import shortened
from monitor.simulate.replay import plan, replay
from monitor.simulate.request import LAYOUTS
from tests.simulated import digest, request, write


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_session_lands_again_as_it_was(layout: str, tmp_path: Path) -> None:
    write(request(tmp_path / "out", layout))
    before = digest(tmp_path / "out")
    assert replay(tmp_path / "out", tmp_path / "again", speed=1e6, keep_gaps=True) == 0
    assert digest(tmp_path / "out") == before
    again = {
        path.relative_to(tmp_path / "again"): path.read_bytes()
        for path in (tmp_path / "again").rglob("*")
        if path.is_file()
    }
    there = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.*")}
    assert again.keys() == {one for one in there if (tmp_path / "out" / one).is_file()}
    for relative, content in again.items():
        assert content == (tmp_path / "out" / relative).read_bytes(), relative


def test_pauses_are_shortened_on_replay() -> None:
    times = [5.0, 6.0, 3000.0, 3010.0]
    assert list(shortened(times, 60.0)) == [0.0, 1.0, 61.0, 71.0]
    assert list(shortened(times, None)) == [0.0, 1.0, 2995.0, 3005.0]


def test_real_mdocs_land_in_their_real_order(realdata: Path, tmp_path: Path) -> None:
    source = realdata / "serialem-frame-mdocs"
    acts = sorted(plan(source, tmp_path), key=lambda act: (act.at_s, act.rank))
    names = [act.rank[1] for act in acts]
    assert len(names) == 61
    assert names == sorted(names), "they are numbered in the order of acquisition"
    gaps = np.diff([act.at_s for act in acts])
    assert (gaps.min(), gaps.max()) == (23.0, 32.0)
    stack_mdoc = realdata / "pacetomo"
    assert replay(stack_mdoc, tmp_path / "out", speed=1e5, keep_gaps=False) == 0
    assert digest(tmp_path / "out") == digest(stack_mdoc)


def test_files_that_cannot_be_dated_keep_their_order(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for second, name in enumerate(("notes.txt", "TS_001_000_0.0.mrc", "log", "TS_001_001_3.0.mrc")):
        write_mrc(source / name, np.full((8, 8), second, np.int16), None)
        os.utime(source / name, (1e9 + second, 1e9 + second))
    (source / "link").symlink_to(source / "log")
    acts = sorted(plan(source, tmp_path / "out"), key=lambda act: (act.at_s, act.rank))
    assert [act.rank[1] for act in acts] == [
        "notes.txt",
        "TS_001_000_0.0.mrc",
        "log",
        "TS_001_001_3.0.mrc",
    ]
