"""Which series share a lamella, and how many tilts they are to have."""

import os
import struct
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from engines.microscope import SerialEMStackWriter
from monitor.errors import NotReady
from monitor.model import Tilt
from monitor.sources.navigator import roots_in_navigator
from monitor.sources.serialem_stack import SerialEMStack
from monitor.sources.targets import Lamella, Lamellae, target_root, tilts_in_plan
from tests.landings import SETTLED_S, landed

WHEN = datetime(2026, 2, 1, 10, 0, 0)
RUN = """_set startTilt = 9
_set minTilt = -51
_set maxTilt = 69
_set step = 3
_set pretilt = 9
_spos = 3,1

_tgt = 001
tsfile = lam_ts_001.mrc
skip = False
"""


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lamellae(tmp_path: Path, clock: Clock) -> Lamellae:
    (tmp_path / "s1/gridA/frames").mkdir(parents=True)
    return Lamellae(tmp_path, clock=clock)


@pytest.mark.parametrize(
    ("series", "root"),
    [
        ("lam_ts_001", "lam"),
        ("lam_p02_ts_001", "lam_p02"),
        ("a_ts_001_ts_002", "a_ts_001"),
        ("lam_ts_01", None),
        ("TS_001", None),
        ("_ts_001", None),
        ("", None),
    ],
)
def test_the_root_of_a_name(series: str, root: str | None) -> None:
    assert target_root(series) == root


def test_a_name_alone_is_no_proof(lamellae: Lamellae) -> None:
    assert lamellae.of("s1/gridA/lam_ts_001.mrc", "lam_ts_001") is None


def test_the_names_may_be_believed_on_request(tmp_path: Path) -> None:
    shared = Lamellae(tmp_path, forced=True).of("s1/lam_ts_001.mrc", "lam_ts_001")
    assert shared == Lamella("s1/lam")
    assert Lamellae(tmp_path, forced=True).of("lam_ts_001.mrc", "lam_ts_001") == Lamella("lam")


def test_a_targets_file_joins_stacks_and_frames(lamellae: Lamellae, tmp_path: Path) -> None:
    (tmp_path / "s1/gridA/lam_tgts.txt").touch()
    expected = Lamella("s1/gridA/lam")
    assert lamellae.of("s1/gridA/lam_ts_001.mrc", "lam_ts_001") == expected
    assert lamellae.of("s1/gridA/lam_ts_002.mrc", "lam_ts_002") == expected
    frames = "s1/gridA/frames/lam_ts_002_tilt_003_angle_-3.0.tif"
    assert lamellae.of(frames, "lam_ts_002") == expected
    assert lamellae.of("s1/gridA/lam2_ts_001.mrc", "lam2_ts_001") is None


@pytest.mark.parametrize(
    "text",
    [
        "AdocVersion = 2.00\r\n\r\n[Item = 1-A]\r\nNote = lam_tgts.txt\r\nColor = 0\r\n",
        "[Item = 7]\nNote = D:\\data\\s1\\lam_tgts.txt\n",
        '<navigator><Item name="1"><Note>lam_tgts.txt</Note></Item></navigator>',
    ],
)
def test_a_navigator_file_names_its_targets(
    lamellae: Lamellae, tmp_path: Path, clock: Clock, text: str
) -> None:
    (tmp_path / "s1/session.nav").write_text(text)
    assert lamellae.of("s1/gridA/lam_ts_001.mrc", "lam_ts_001") is None, "it may be half written"
    clock.now_s += 3.0
    assert lamellae.of("s1/gridA/lam_ts_001.mrc", "lam_ts_001") == Lamella("s1/lam")


def test_a_real_navigator_file_without_targets(realdata: Path) -> None:
    text = (realdata / "navigator" / "instamatic.nav").read_text("utf-8", "replace")
    assert roots_in_navigator(text) == frozenset()


def test_the_plan_is_read_once_it_is_at_rest(
    lamellae: Lamellae, tmp_path: Path, clock: Clock
) -> None:
    folder = tmp_path / "s1/gridA"
    (folder / "lam_tgts.txt").write_text("_tgt = 001\ntsfile = lam_ts_001.mrc\n")
    (folder / "lam_tgts_run01.txt").write_text(RUN[:40])
    planned = []
    for text in (None, RUN, None, "_tgt = 001\n"):
        if text is not None:
            (folder / "lam_tgts_run01.txt").write_text(text)
        shared = lamellae.of("s1/gridA/lam_ts_001.mrc", "lam_ts_001")
        assert shared is not None
        planned.append(shared.tilts_planned)
        clock.now_s += 2.5
    assert planned == [None, None, 41, 41], "PACEtomo leaves the plan out when it is done"


@pytest.mark.parametrize(
    ("text", "tilts"),
    [
        (RUN, 41),
        (RUN.replace("step = 3", "step = 2"), 61),
        (RUN.replace("\n", "\r\n"), 41),
        (RUN.replace("step = 3", "step = 0"), None),
        (RUN.replace("step = 3", "step = 0.000001"), None),
        (RUN.replace("step = 3", "step = 1e-9"), None),
        (RUN.replace("_set maxTilt = 69", "_set maxTilt = -69"), None),
        ("_set step = 3\n", None),
        ("", None),
    ],
)
def test_the_plan(text: str, tilts: int | None) -> None:
    assert tilts_in_plan(text) == tilts


def test_links_and_large_files_are_left_alone(
    lamellae: Lamellae, tmp_path: Path, clock: Clock
) -> None:
    folder = tmp_path / "s1/gridA"
    (folder / "lam_tgts.txt").touch()
    (tmp_path / "elsewhere").write_text(RUN)
    (folder / "lam_tgts_run01.txt").symlink_to(tmp_path / "elsewhere")
    (folder / "lam_tgts_run02.txt").write_text(RUN)
    os.truncate(folder / "lam_tgts_run02.txt", 1 << 30)
    for _ in range(3):
        shared = lamellae.of("s1/gridA/lam_ts_001.mrc", "lam_ts_001")
        assert shared is not None
        assert shared.tilts_planned is None
        clock.now_s += 3.0


def pacetomo_stack(root: Path, target: int, tilts: int) -> str:
    relative = f"s1/gridA/lam_ts_{target:03d}.mrc"
    stack = SerialEMStackWriter(root / relative, (5, 7), 2.0)
    for k in range(tilts):
        when = WHEN + timedelta(seconds=60 * k + target)
        stack.add(np.full((5, 7), k), 3.0 * k, when, SpecimenShift="1.0 2.0", EucentricOffset="0")
    return relative


def tilts_of(source: SerialEMStack, root: Path, relative: str, quiet_s: float) -> list[Tilt]:
    offer = landed(root, relative, quiet_s)
    return [
        tilt for tilt in source.new_tilts(offer, lambda _: False) if source.pixels(tilt).any() >= 0
    ]


def test_targets_share_a_lamella_by_what_pacetomo_writes(tmp_path: Path) -> None:
    (tmp_path / "s1/gridA").mkdir(parents=True)
    source = SerialEMStack(tmp_path)
    for target in (1, 2):
        tilts = tilts_of(source, tmp_path, pacetomo_stack(tmp_path, target, 3), 0.0)
        assert {tilt.lamella for tilt in tilts} == {"s1/gridA/lam"}
        assert {tilt.series for tilt in tilts} == {f"lam_ts_{target:03d}"}
        assert {tilt.id.series_key for tilt in tilts} == {f"s1/gridA/lam_ts_{target:03d}"}
        assert {tilt.tilts_expected for tilt in tilts} == {3}, "as many as are announced"


def test_a_stack_named_like_a_target_waits_for_its_keys(tmp_path: Path) -> None:
    (tmp_path / "s1").mkdir()
    relative = "s1/lam_ts_001.mrc"
    stack = SerialEMStackWriter(tmp_path / relative, (5, 7), 2.0)
    stack.add(np.ones((5, 7)), 0.0, WHEN)
    source = SerialEMStack(tmp_path)
    with pytest.raises(NotReady):
        tilts_of(source, tmp_path, relative, 0.0)
    (tilt,) = tilts_of(source, tmp_path, relative, 2.0)
    assert tilt.lamella == "s1/lam_ts_001", "nothing but the name speaks of PACEtomo"


def test_the_real_targets_share_a_lamella(tmp_path: Path, realdata: Path) -> None:
    text = (realdata / "pacetomo" / "chrom_07_ts_010.mrc.mdoc").read_bytes()
    (tmp_path / "s1").mkdir()
    stack = SerialEMStackWriter(tmp_path / "s1/chrom_07_ts_010.mrc", (5, 7), 2.0)
    for k in range(11):
        stack.add(np.full((5, 7), k), 3.0 * k, WHEN)
    raw = bytearray(stack.path.read_bytes())
    struct.pack_into("<h", raw, 130, 0)  # no angles in the extended header
    stack.path.write_bytes(bytes(raw))
    stack.mdoc_path.write_bytes(text)
    source = SerialEMStack(tmp_path)
    tilts = tilts_of(source, tmp_path, "s1/chrom_07_ts_010.mrc", SETTLED_S)
    assert {tilt.lamella for tilt in tilts} == {"s1/chrom_07"}
    assert {tilt.tilts_expected for tilt in tilts} == {11}
    assert tilts[0].movie == "chrom_07_ts_010_167_000_-0.0.mrc"
