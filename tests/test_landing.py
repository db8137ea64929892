import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from monitor.landing import LandedQueue
from monitor.model import FileStat, Landed
from tests.waiting import wait_until

MOVIE, MDOC = "s/a.mrc", "s/a.mrc.mdoc"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def stat(version: int) -> FileStat:
    return FileStat(size=version, mtime_ns=version, inode=1)


def queue_at(clock: Clock) -> LandedQueue:
    return LandedQueue(Path("/data"), clock)


def taken(queue: LandedQueue) -> Landed:
    landed = queue.get(0.0)
    assert landed is not None
    return landed


def test_a_file_comes_once_until_it_changes() -> None:
    clock = Clock()
    queue = queue_at(clock)
    for _ in range(3):
        queue.saw(MOVIE, MOVIE, stat(1))
    assert len(queue) == 1
    clock.now_s += 7
    landed = taken(queue)
    assert landed == Landed(Path("/data/s/a.mrc"), MOVIE, stat(1), 0, 7.0, 1000.0)
    assert queue.get(0.0) is None
    queue.done(MOVIE)
    queue.saw(MOVIE, MOVIE, stat(1))
    queue.scanned(clock.now_s, 1.0)
    assert queue.get(0.0) is None
    queue.saw(MOVIE, MOVIE, stat(2))
    assert taken(queue).stat == stat(2)


def test_its_mdoc_brings_a_file_back() -> None:
    clock = Clock()
    queue = queue_at(clock)
    queue.saw(MOVIE, MDOC, stat(1))
    assert queue.get(0.0) is None, "the movie is not there yet"
    queue.saw(MOVIE, MOVIE, stat(1))
    queue.done(taken(queue).relative)
    clock.now_s += 5
    queue.saw(MOVIE, MDOC, stat(2))
    clock.now_s += 1
    landed = taken(queue)
    assert (landed.relative, landed.stat, landed.quiet_s) == (MOVIE, stat(1), 1.0)


def test_a_change_while_the_worker_has_it_is_not_lost() -> None:
    for give_back in (LandedQueue.done, LandedQueue.retry):
        queue = queue_at(Clock())
        queue.saw(MOVIE, MOVIE, stat(1))
        taken(queue)
        queue.saw(MOVIE, MOVIE, stat(2))
        assert queue.get(0.0) is None, "never with two workers at once"
        give_back(queue, MOVIE)
        assert taken(queue).stat == stat(2)


def test_an_incomplete_file_comes_again_after_each_scan() -> None:
    clock = Clock()
    queue = queue_at(clock)
    queue.saw(MOVIE, MOVIE, stat(1))
    queue.retry(taken(queue).relative)
    assert queue.incomplete == 1
    assert queue.get(0.0) is None
    counts = []
    for seconds in (0.5, 1.0, 2.0):
        clock.now_s = 1000.0 + seconds
        queue.scanned(clock.now_s, 1.0)
        landed = taken(queue)
        counts.append((landed.unchanged_scans, landed.quiet_s))
        queue.retry(landed.relative)
    assert counts == [(0, 0.5), (1, 1.0), (2, 2.0)], "a look too soon proves nothing"
    queue.saw(MOVIE, MOVIE, stat(2))
    assert taken(queue).unchanged_scans == 0


def test_a_file_that_went_away_is_forgotten() -> None:
    queue = queue_at(Clock())
    for member in (MOVIE, MDOC):
        queue.saw(MOVIE, member, stat(1))
    queue.gone(MOVIE, MOVIE)
    assert queue.get(0.0) is None
    queue.gone(MOVIE, MDOC)
    assert queue.unsettled() == queue.lively() == []
    queue.saw(MOVIE, MOVIE, stat(1))
    assert taken(queue).relative == MOVIE
    queue.gone(MOVIE, MOVIE)
    queue.done(MOVIE)
    assert queue.lively() == []
    queue.gone(MOVIE, MOVIE)


def test_files_come_in_the_order_of_their_changes() -> None:
    queue = queue_at(Clock())
    for name in "cab":
        queue.saw(name, name, stat(1))
    queue.saw("c", "c", stat(2))
    assert [taken(queue).relative for _ in range(3)] == ["c", "a", "b"]


def test_what_every_scan_has_to_look_at() -> None:
    clock = Clock()
    queue = queue_at(clock)
    hour_ns = 3600 * 10**9
    for name, mtime_ns in (("old", 0), ("recent", 5 * hour_ns), ("newest", 5 * hour_ns + 1)):
        queue.saw(name, name, FileStat(1, mtime_ns, 1))
    assert [image for image, _ in queue.unsettled()] == ["old", "recent", "newest"]
    while (landed := queue.get(0.0)) is not None:
        queue.done(landed.relative)
    assert queue.unsettled() == []
    assert [image for image, _ in queue.lively()] == ["recent", "newest"]
    queue.saw("old", "old", FileStat(2, 1, 1))
    queue.done(taken(queue).relative)
    assert [image for image, _ in queue.lively()] == ["old", "recent", "newest"]
    clock.now_s += 4000
    assert [image for image, _ in queue.lively()] == ["recent", "newest"]


def test_the_age_of_the_oldest_change() -> None:
    clock = Clock()
    queue = queue_at(clock)
    assert queue.oldest_unprocessed_s == 0.0
    queue.saw("a", "a", stat(1))
    clock.now_s += 3
    queue.saw("b", "b", stat(1))
    clock.now_s += 1
    assert queue.oldest_unprocessed_s == 4.0
    taken(queue)
    assert queue.oldest_unprocessed_s == 4.0, "what the worker has is not done"
    queue.done("a")
    assert queue.oldest_unprocessed_s == 1.0
    queue.retry(taken(queue).relative)
    assert queue.oldest_unprocessed_s == 0.0, "what nobody completed is not ours to do"


def test_a_waiting_worker_is_woken() -> None:
    queue = LandedQueue(Path("/data"))
    got: list[Landed | None] = []
    worker = threading.Thread(target=lambda: got.append(queue.get(10.0)))
    worker.start()
    queue.saw(MOVIE, MOVIE, stat(1))
    wait_until(lambda: got, "the worker to get the file")
    worker.join()
    assert got[0] is not None
    assert got[0].relative == MOVIE


actions = st.lists(
    st.tuples(
        st.sampled_from(["saw", "get", "done", "retry", "scanned", "gone"]), st.integers(0, 3)
    ),
    max_size=60,
)


@given(actions)
def test_whatever_happens_the_last_change_is_read_or_waits(steps: list[tuple[str, int]]) -> None:
    """An in-memory model: per file the newest version, the version last read, who has it."""
    clock = Clock()
    queue = queue_at(clock)
    newest: dict[str, int] = {}
    read: dict[str, int] = {}
    held: dict[str, int] = {}
    for action, number in steps:
        name = "abcd"[number]
        clock.now_s += 1
        if action == "saw":
            newest[name] = newest.get(name, 0) + 1
            queue.saw(name, name, stat(newest[name]))
        elif action == "get" and (landed := queue.get(0.0)) is not None:
            assert landed.relative not in held
            held[landed.relative] = landed.stat.size
        elif action in ("done", "retry") and name in held:
            read[name] = held.pop(name)
            (queue.done if action == "done" else queue.retry)(name)
        elif action == "scanned":
            queue.scanned(clock.now_s, 0.5)
        elif action == "gone" and name not in held:
            queue.gone(name, name)
            newest.pop(name, None)
            read.pop(name, None)
    for name in list(held):
        read[name] = held.pop(name)
        queue.done(name)
    while (landed := queue.get(0.0)) is not None:
        read[landed.relative] = landed.stat.size
        queue.done(landed.relative)
    assert {name: read.get(name) for name in newest} == newest
