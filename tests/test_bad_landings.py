import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bad_files import CATALOGUE, BadFile
from tests.daemon import ANGLES_DEG, Daemon, Microscope, Subscriber, picture
from tests.waiting import wait_until

# Of the files that are cut at every byte of a header, every fiftieth: they are all alike here.
DROPPED = [
    case
    for index, case in enumerate(CATALOGUE)
    if index % 50 == 0 or not case.name.startswith("MRC: cut after")
]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.stop()


def facts(folder: Path) -> list[tuple[object, ...]]:
    """All of a tree that would change if anybody wrote there."""
    return [
        (str(path), found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        for found in [path.lstat()]
    ]


def refused(daemon: Daemon) -> Counter[str]:
    """How many files gave no tilt, by reason."""
    lines = daemon.metrics().splitlines()
    found = [
        re.search(r'reason="(\w+)".*} ([\d.]+)$', line)
        for line in lines
        if line.startswith("icewatch_files_refused_total")
    ]
    return Counter({match[1]: int(float(match[2])) for match in found if match})


def expected(cases: list[BadFile]) -> Counter[str]:
    """For which reason the files among them have to be refused, where there is only one."""
    return Counter(
        reason
        for case in cases
        for reason in case.reasons
        if case.is_image
        and len(case.reasons) == 1
        and reason not in ("sound", "unreadable", "missing")
    )


def drop_all_and_watch(daemon: Daemon) -> Subscriber:
    """Put every bad file there, start the daemon and let a good stack grow beside them."""
    for index, case in enumerate(DROPPED):
        case.put_in(daemon.acquisition / "bad" / str(index))
    daemon.start()
    daemon.wait_for_state("ready")
    subscriber = Subscriber(daemon.endpoint)
    microscope = Microscope(daemon.acquisition)
    before = facts(daemon.acquisition / "bad")
    for index, angle in enumerate(ANGLES_DEG):
        microscope.add("good/L1", angle, picture(10.0, index))
        # Each is there before the next one lands, so that none of them waits for the bad ones.
        wait_until(lambda angle=angle: angle in good(subscriber), f"{angle} degrees", 10.0)  # type: ignore[misc]
    assert daemon.status()["state"] == "ready"
    assert facts(daemon.acquisition / "bad") == before
    return subscriber


def good(subscriber: Subscriber) -> list[float]:
    """Angles of the good stack in the order in which they were published."""
    return [
        message["tilt"]["angle_deg"]
        for message in subscriber.messages("tilt")
        if message["tilt"]["session"] == "good"
    ]


def test_bad_files_beside_a_good_stack_delay_nothing(daemon: Daemon) -> None:
    subscriber = drop_all_and_watch(daemon)
    wanted = expected(DROPPED)
    wait_until(
        lambda: refused(daemon)["bomb"] >= wanted["bomb"],
        "bombs to be named",
        20.0,
    )
    assert tuple(good(subscriber)) == ANGLES_DEG
    status = daemon.status()
    assert status["state"] == "ready"
    assert all(problem["sentence"].isprintable() for problem in status["problems"])
    subscriber.close()


@pytest.mark.slow
def test_every_bad_file_is_counted_by_its_reason(daemon: Daemon) -> None:
    subscriber = drop_all_and_watch(daemon)
    wanted = expected(DROPPED)
    wait_until(
        lambda: all(refused(daemon)[reason] >= count for reason, count in wanted.items()),
        "all bad files to be named",
        60.0,
    )
    found = refused(daemon)
    # Some are refused for one of two reasons, and those that cannot be read are looked at again.
    unsure = sum(len(case.reasons) != 1 or not case.is_image for case in DROPPED)
    assert sum(found[reason] for reason in wanted) <= wanted.total() + unsure
    assert tuple(good(subscriber)) == ANGLES_DEG
    status, complaint = daemon.signal(15)
    assert status == 0
    assert "Traceback" not in complaint
    named = [line for line in complaint.splitlines() if " monitor.problems " in line]
    assert len(named) >= wanted.total()
    assert all(line.isprintable() for line in complaint.splitlines())
    subscriber.close()
