import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engines.errors import PixelsError
from engines.microscope_eer import write_eer_movie
from engines.microscope_frames import write_mrc_movie_growing, write_tiff_movie
from engines.readers.movie import read_movie_header, sum_of_frames
from tests.bad_file_reader import ROOM_BYTES
from tests.bad_files import CATALOGUE, BadFile
from tests.daemon import ROOT

REASONS = frozenset(
    {"missing", "unreadable", "truncated", "header", "mode", "changed", "decode", "bomb"}
)
LONGEST_S = 2.0


def said_of(paths: list[Path]) -> list[dict[str, Any]]:
    """What one process of its own says of each file, with the memory and time it took."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bad_file_reader"],
        input=json.dumps([str(path) for path in paths]),
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    following = paths[len(answers)] if len(answers) < len(paths) else "the end"
    assert (done.returncode, done.stderr) == (0, ""), f"at {following!r}: {done.stderr[-2000:]}"
    return answers


def complaint(case: BadFile, answer: dict[str, Any]) -> str:
    """What an answer breaks of what is promised; "" for nothing."""
    sentence = answer["sentence"]
    if case.is_image and answer["reason"] not in case.reasons:
        return f"said {answer['reason']!r} ({sentence}), not one of {sorted(case.reasons)}"
    if answer["reason"] != "sound" and not (sentence.isprintable() and 10 < len(sentence) < 1500):
        return f"said {sentence!r}, which is no sentence"
    if answer["peak_bytes"] > 3 * answer["declared"] + ROOM_BYTES:
        return f"took {answer['peak_bytes']} bytes for {answer['declared']}"
    if answer["cpu_s"] > LONGEST_S:
        return f"took {answer['cpu_s']:.1f} s"
    return ""


def test_every_bad_file_gets_one_sentence_and_costs_little(tmp_path: Path) -> None:
    paths = [case.put_in(tmp_path / str(index)) for index, case in enumerate(CATALOGUE)]
    answers = said_of(paths)
    found = {
        case.name: complaint(case, answer) for case, answer in zip(CATALOGUE, answers, strict=True)
    }
    assert {name: what for name, what in found.items() if what} == {}


def test_the_catalogue_is_as_long_as_it_should_be() -> None:
    names = [case.name for case in CATALOGUE]
    assert len(set(names)) == len(names)
    by_hand = [name for name in names if not name.startswith("MRC: cut after")]
    assert len(by_hand) >= 60
    for kind in ("MRC", "TIFF", "EER", "mdoc"):
        assert sum(name.startswith(kind) for name in by_hand) >= 15
    assert all(case.reasons <= REASONS | {"sound"} for case in CATALOGUE)
    assert REASONS - {"changed"} == {
        reason for case in CATALOGUE for reason in case.reasons if reason != "sound"
    }


def small_movies(folder: Path) -> list[bytes]:
    """One sound movie of each kind."""
    frames = [np.random.default_rng(n).integers(0, 3, (8, 9)).astype(np.uint8) for n in range(2)]
    path = folder / "sound"
    sound = []
    for compression in ("none", "lzw", "zip"):
        write_tiff_movie(path, frames, 2.0, compression=compression)
        sound.append(path.read_bytes())
    write_eer_movie(path, frames, 2.0)
    sound.append(path.read_bytes())
    write_mrc_movie_growing(path, frames, 2.0, 2, bits=8)
    sound.append(path.read_bytes())
    return sound


WORDS = [0, 1, 2, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]
changes = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.one_of(
            st.binary(min_size=1, max_size=9),
            st.sampled_from(WORDS).map(lambda word: word.to_bytes(4, "little")),
            st.sampled_from(WORDS).map(lambda word: word.to_bytes(4, "big")),
        ),
    ),
    max_size=5,
)


def read_mutated(folder: Path, which: int, where: Any, length: float) -> None:
    sound = small_movies_of(folder)[which]
    raw = bytearray(sound)
    for place, piece in where:
        at = int(place * len(raw))
        raw[at : at + len(piece)] = piece
    path = folder / "mutated"
    path.write_bytes(raw[: round(length * len(raw))])
    try:
        header = read_movie_header(path)
        image = sum_of_frames(path, header)
    except PixelsError as error:
        assert error.reason in REASONS
        assert str(error).isprintable()
        return
    assert image.shape == (header.ny, header.nx)
    assert image.nbytes <= 8 * 10_000 * len(raw)


_SOUND: dict[Path, list[bytes]] = {}


def small_movies_of(folder: Path) -> list[bytes]:
    if folder not in _SOUND:
        _SOUND[folder] = small_movies(folder)
    return _SOUND[folder]


def folder_of(factory: pytest.TempPathFactory) -> Path:
    folder = factory.getbasetemp() / "mutations"
    folder.mkdir(exist_ok=True)
    return folder


mutations = given(
    which=st.integers(0, 4),
    where=changes,
    length=st.one_of(st.just(1.0), st.floats(0, 1)),
)


@mutations
@example(which=0, where=[], length=1.0)
@settings(max_examples=400, deadline=None)
def test_mutated_movies_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, which: int, where: Any, length: float
) -> None:
    read_mutated(folder_of(tmp_path_factory), which, where, length)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@mutations
@settings(
    max_examples=100_000, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
def test_many_mutated_movies_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, which: int, where: Any, length: float
) -> None:
    read_mutated(folder_of(tmp_path_factory), which, where, length)
