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
    assert landed == Landed(
        Path("/data/s/a.mrc"),
        MOVIE,
        stat(1),
        0,
        7.0,
        1000.0,
        closed=False,
        members={MOVIE: stat(1)},
    )
    assert queue.get(0.0) is None
    queue.done(MOVIE)
    queue.saw(MOVIE, MOVIE, stat(1))
    queue.scanned(clock.now_s, 1.0)
    assert queue.get(0.0) is None
    queue.saw(MOVIE, MOVIE, stat(2))
    assert taken(queue).stat == stat(2)


def test_the_end_of_writing_brings_a_file_back() -> None:
    queue = queue_at(Clock())
    queue.saw(MOVIE, MOVIE, stat(1))
    landed = taken(queue)
    assert not landed.at_rest
    queue.retry(MOVIE)
    queue.saw(MOVIE, MOVIE, stat(1))
    assert len(queue) == 0
    queue.saw(MOVIE, MOVIE, stat(1), closed=True)
    assert taken(queue).at_rest
    queue.done(MOVIE)
    queue.saw(MOVIE, MOVIE, stat(1), closed=True)
    assert len(queue) == 0, "nothing was written since"
    queue.saw(MOVIE, MOVIE, stat(2))
    assert not taken(queue).at_rest


def test_the_end_of_writing_is_not_missed_while_the_worker_looks() -> None:
    queue = queue_at(Clock())
    queue.saw(MOVIE, MOVIE, stat(1))
    taken(queue)
    queue.saw(MOVIE, MOVIE, stat(1), closed=True)
    queue.retry(MOVIE)
    assert taken(queue).at_rest


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
    assert queue.unsettled() == [], "what waits is looked at when its turn comes"
    taken(queue)
    queue.retry(taken(queue).relative)
    assert [image for image, _ in queue.unsettled()] == ["old", "recent"]
    queue.done("old")
    queue.scanned(clock.now_s, 1.0)
    while (landed := queue.get(0.0)) is not None:
        queue.done(landed.relative)
    assert queue.unsettled() == []
    assert [image for image, _ in queue.lively()] == ["recent", "newest"]
    queue.saw("old", "old", FileStat(2, 1, 1))
    queue.done(taken(queue).relative)
    assert [image for image, _ in queue.lively()] == ["recent", "newest", "old"]
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


def test_a_file_that_changes_while_it_waits_grows_no_younger() -> None:
    clock = Clock()
    queue = queue_at(clock)
    for version in range(5):
        queue.saw("a", "a", stat(version))
        clock.now_s += 2
    assert queue.oldest_unprocessed_s == 10.0
    assert taken(queue).quiet_s == 2.0


def test_scans_look_at_no_more_files_than_they_can() -> None:
    queue = queue_at(Clock())
    queue.saw_all((f"f{n}", f"f{n}", FileStat(1, n, 1)) for n in range(5000))
    while (landed := queue.get(0.0)) is not None:
        queue.done(landed.relative)
    lively = queue.lively()
    assert len(lively) == 2000
    assert lively[-1] == ("f4999", "f4999"), "those that changed last"


def test_what_lands_comes_before_what_lay_there() -> None:
    queue = queue_at(Clock())
    for name in "abc":
        queue.saw(name, name, stat(1), lay_there=True)
    assert taken(queue).relative == "a"
    for name in "xy":
        queue.saw(name, name, stat(1))
    queue.saw("c", "c", stat(2))
    assert [taken(queue).relative for _ in range(4)] == ["x", "y", "c", "b"]
    for name in "abcxy":
        queue.retry(name)
    queue.scanned(2000.0, 1.0)
    assert [taken(queue).relative for _ in range(5)] == ["x", "y", "c", "a", "b"]


def test_what_lay_there_makes_way_between_two_tilts() -> None:
    queue = queue_at(Clock())
    for name in "ab":
        queue.saw(name, name, stat(1), lay_there=True)
    stack = taken(queue).relative
    assert not queue.make_way(stack), "nobody else waits"
    queue.saw("x", "x", stat(1))
    assert queue.make_way(stack)
    assert queue.retry(stack)
    assert taken(queue).relative == "x"
    assert not queue.make_way("x"), "it landed itself"
    queue.done("x")
    assert [taken(queue).relative for _ in range(2)] == ["a", "b"]
    assert queue.get(0.0) is None


def test_what_made_way_and_is_gone_meanwhile_does_not_come_back() -> None:
    queue = queue_at(Clock())
    queue.saw("a", "a", stat(1), lay_there=True)
    taken(queue)
    queue.saw("x", "x", stat(1))
    assert queue.make_way("a")
    queue.gone("a", "a")
    assert not queue.retry("a")
    assert taken(queue).relative == "x"
    assert queue.get(0.0) is None


def test_what_lay_there_has_its_turn_however_much_lands() -> None:
    clock = Clock()
    queue = queue_at(clock)
    for number in range(3):
        queue.saw(f"old{number}", f"old{number}", stat(1), lay_there=True)
    came = []
    for number in range(30):
        queue.saw(f"new{number}", f"new{number}", stat(1))
        came.append(taken(queue).relative)
        queue.done(came[-1])
        clock.now_s += 2.0
    assert [name for name in came if name.startswith("old")] == ["old0", "old1", "old2"]
    assert came.index("old0") == 5
    assert len(queue) == 3, "the new files that the old ones held up"


def test_a_look_before_its_turn_tells_how_a_file_is_now() -> None:
    clock = Clock()
    queue = queue_at(clock)
    queue.saw(MOVIE, MOVIE, stat(1))
    queue.saw(MOVIE, MDOC, stat(1))
    clock.now_s += 8
    assert taken(queue).unchanged_scans == 0
    landed = queue.looked(MOVIE, {MOVIE: stat(1), MDOC: stat(1)}, 1.0)
    assert landed is not None
    assert (landed.unchanged_scans, landed.quiet_s) == (4, 8.0), "as many looks as 8 s had room for"
    landed = queue.looked(MOVIE, {MOVIE: stat(1), MDOC: stat(2)}, 1.0)
    assert landed is not None
    assert (landed.unchanged_scans, landed.quiet_s, landed.image_quiet_s) == (0, 0.0, 8.0)
    landed = queue.looked(MOVIE, {MOVIE: stat(2)}, 1.0)
    assert landed is not None
    assert (landed.stat, landed.quiet_s, landed.image_quiet_s) == (stat(2), 0.0, 0.0)
    queue.done(MOVIE)
    assert queue.get(0.0) is None, "the worker saw it as it is"
    assert queue.looked("s/other.mrc", {}, 1.0) is None


def test_how_long_the_image_is_quiet_whatever_its_mdoc_does() -> None:
    clock = Clock()
    queue = queue_at(clock)
    queue.saw(MOVIE, MOVIE, stat(1))
    for version in range(3):
        clock.now_s += 4
        queue.saw(MOVIE, MDOC, stat(version))
    landed = taken(queue)
    assert (landed.quiet_s, landed.image_quiet_s) == (0.0, 12.0)


def test_a_new_inode_alone_is_a_change_where_inodes_can_be_trusted() -> None:
    for any_inode in (False, True):
        queue = queue_at(Clock())
        queue.saw(MOVIE, MOVIE, FileStat(1, 1, 1), any_inode=any_inode)
        queue.done(taken(queue).relative)
        queue.saw(MOVIE, MOVIE, FileStat(1, 1, 2), any_inode=any_inode)
        assert len(queue) == (0 if any_inode else 1)
        queue.saw(MOVIE, MOVIE, FileStat(1, 2, 2), any_inode=any_inode)
        assert taken(queue).stat == FileStat(1, 2, 2)


def test_a_file_is_offered_again_when_asked_for() -> None:
    queue = queue_at(Clock())
    queue.saw(MOVIE, MOVIE, stat(1))
    queue.again(MOVIE)
    assert taken(queue).relative == MOVIE
    queue.again(MOVIE)
    assert queue.get(0.0) is None
    queue.done(MOVIE)
    assert taken(queue).relative == MOVIE
    queue.done(MOVIE)
    queue.again("s/unknown.mrc")
    assert queue.get(0.0) is None


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
        st.sampled_from(
            ["saw", "found", "get", "done", "retry", "way", "look", "again", "scanned", "gone"]
        ),
        st.integers(0, 3),
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
        if action in ("saw", "found"):
            newest[name] = newest.get(name, 0) + 1
            queue.saw(name, name, stat(newest[name]), lay_there=action == "found")
        elif action == "get" and (landed := queue.get(0.0)) is not None:
            assert landed.relative not in held
            held[landed.relative] = landed.stat.size
        elif action in ("done", "retry") and name in held:
            read[name] = held.pop(name)
            (queue.done if action == "done" else queue.retry)(name)
        elif action == "way" and name in held:
            queue.make_way(name)
        elif action == "look" and name in held and name in newest:
            looked = queue.looked(name, {name: stat(newest[name])}, 0.5)
            assert looked is not None
            held[name] = looked.stat.size
        elif action == "again":
            queue.again(name)
        elif action == "scanned":
            queue.scanned(clock.now_s, 0.5)
        elif action == "gone" and name not in held:
            queue.gone(name, name)
            newest.pop(name, None)
            read.pop(name, None)
        assert set(dict(queue.lively())) <= newest.keys() | held.keys()
    for name in list(held):
        read[name] = held.pop(name)
        queue.done(name)
    while (landed := queue.get(0.0)) is not None:
        read[landed.relative] = landed.stat.size
        queue.done(landed.relative)
    assert {name: read.get(name) for name in newest} == newest
