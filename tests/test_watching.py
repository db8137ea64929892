import threading
from pathlib import Path

import pytest

from monitor.watching import FolderEvents, filesystem_type, has_remote_writers
from tests.waiting import wait_until

MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:30 / /data rw,relatime shared:1 - nfs4 server:/data rw
41 40 0:31 / /data/local rw - xfs /dev/sdb rw
42 27 0:32 / /mnt/my\040share rw - cifs //server/x rw
43 27 0:33 / /stacked rw - ext4 /dev/sdc rw
44 27 0:34 / /stacked rw - fuse.sshfs host:/ rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/x", "ext4"),
        ("/data/offload", "nfs4"),
        ("/database", "ext4"),
        ("/data/local/s", "xfs"),
        ("/mnt/my share/s", "cifs"),
        ("/stacked/s", "fuse.sshfs"),
    ],
)
def test_the_innermost_mount_counts(path: str, expected: str) -> None:
    assert filesystem_type(Path(path), MOUNTS) == expected
    assert filesystem_type(Path(path), "") == ""


def test_this_disk_is_local(tmp_path: Path) -> None:
    assert not has_remote_writers(tmp_path)


class Heard:
    def __init__(self) -> None:
        self.paths: list[str] = []
        self.closed: list[str] = []
        self.events = FolderEvents(self._hear)

    def _hear(self, path: str, closed: bool) -> None:
        if closed:
            self.closed.append(path)
        self.paths.append(path)

    def wait_for(self, path: str) -> None:
        wait_until(lambda: path in self.paths, f"word of {path!r}, heard {self.paths}")


def test_what_is_written_created_or_moved_is_told(tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "s").mkdir(parents=True)
    (root / "s" / "old.mrc").write_bytes(b"x")
    (tmp_path / "outside.mrc").write_bytes(b"x")
    heard = Heard()
    assert heard.events.start(root)
    try:
        (root / "s" / "a.mrc").write_bytes(b"x")
        heard.wait_for("s/a.mrc")
        heard.paths.clear()
        with (root / "s" / "a.mrc").open("ab") as file:
            file.write(b"y")
        heard.wait_for("s/a.mrc")
        (root / "s" / "a.mrc").rename(root / "s" / "b.mrc")
        heard.wait_for("s/b.mrc")
        (tmp_path / "outside.mrc").rename(root / "in.mrc")
        heard.wait_for("in.mrc")
        (root / "t" / "u").mkdir(parents=True)
        heard.wait_for("t")
        heard.paths.clear()
        assert (root / "s" / "old.mrc").read_bytes() == b"x"
        (root / "end").write_bytes(b"")
        heard.wait_for("end")
        assert "s/old.mrc" not in heard.paths, "reading is no event"
    finally:
        heard.events.stop()
    heard.events.stop()


def test_the_end_of_writing_is_told_from_its_beginning(tmp_path: Path) -> None:
    heard = Heard()
    assert heard.events.start(tmp_path)
    try:
        with (tmp_path / "a.mrc").open("wb") as file:
            file.write(b"x")
            file.flush()
            heard.wait_for("a.mrc")
            assert heard.closed == []
        wait_until(lambda: heard.closed == ["a.mrc"], "word of its end")
        (tmp_path / "a.mrc").rename(tmp_path / "b.mrc")
        wait_until(lambda: heard.closed == ["a.mrc", "b.mrc"], "word of its new name")
    finally:
        heard.events.stop()


def test_a_linked_directory_is_watched_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    heard = Heard()
    assert heard.events.start(tmp_path / "link")
    try:
        (tmp_path / "real" / "a.mrc").write_bytes(b"x")
        heard.wait_for("a.mrc")
    finally:
        heard.events.stop()


def test_a_directory_that_cannot_be_watched_gives_no_events(tmp_path: Path) -> None:
    before = threading.active_count()
    assert not Heard().events.start(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert not Heard().events.start(tmp_path / "loop")
    wait_until(lambda: threading.active_count() <= before, "watching threads to end")


@pytest.mark.slow  # takes from every other program of this user, too
def test_too_many_watchers_are_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The kernel gives each user so many inotify instances (128 by default) and no more."""
    limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    if limit > 2000:
        pytest.skip(f"the kernel allows {limit} inotify instances, too many to use them up here")
    before = threading.active_count()
    started: list[FolderEvents] = []
    try:
        for _ in range(limit + 1):
            events = FolderEvents(lambda path, closed: None)
            if not events.start(tmp_path):
                break
            started.append(events)
        else:
            pytest.fail("the limit was never reached")
    finally:
        for events in started:
            events.stop()
    assert "the directory is polled" in caplog.text
    wait_until(lambda: threading.active_count() <= before, "watching threads to end")


def test_many_nested_folders_at_once_raise_no_alarm(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()
    assert heard.events.start(tmp_path)
    try:
        for number in range(100):
            (tmp_path / f"s{number}" / "a" / "b").mkdir(parents=True)
        (tmp_path / "end").write_bytes(b"")
        heard.wait_for("end")
    finally:
        heard.events.stop()
    assert [warning for warning in recwarn if warning.category is RuntimeWarning] == []
    assert caplog.records == []


def test_stopping_ends_its_threads(tmp_path: Path) -> None:
    before = threading.active_count()
    heard = Heard()
    assert heard.events.start(tmp_path)
    assert threading.active_count() > before
    assert heard.events.start(tmp_path), "starting again stops the first"
    heard.events.stop()
    wait_until(lambda: threading.active_count() <= before, "watching threads to end")
