import errno
import os
import shutil
from pathlib import Path

import pytest

from monitor.folders import FolderTree
from monitor.walk import Stalled, Walk
from tests.privileges import as_nobody


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def claims(relative: str) -> str | None:
    return relative.removesuffix(".mdoc") if ".mrc" in relative else None


def tree_of(root: Path, clock: Clock | None = None) -> FolderTree:
    return FolderTree(root, claims, clock or Clock())


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def members(walk: Walk) -> list[str]:
    return sorted(seen.member for seen in walk.seen)


def test_everything_is_found_once(tmp_path: Path) -> None:
    fill(tmp_path, "a.mrc", "s/b.mrc", "s/b.mrc.mdoc", "s/g/deep/c.mrc", "s/notes.txt", "s/d.jpg")
    tree = tree_of(tmp_path)
    first = tree.walk(every_file=True)
    assert members(first) == ["a.mrc", "s/b.mrc", "s/b.mrc.mdoc", "s/g/deep/c.mrc"]
    assert {(seen.image, seen.member) for seen in first.seen} >= {("s/b.mrc", "s/b.mrc.mdoc")}
    assert (tree.files_seen, tree.files_ignored) == (6, 2)
    assert members(tree.walk(every_file=False)) == []
    assert members(tree.walk(every_file=True)) == members(first)
    fill(tmp_path, "s/g/e.mrc", "new/f.mrc")
    assert members(tree.walk(every_file=False)) == ["new/f.mrc", "s/g/e.mrc"]


def test_what_went_is_told(tmp_path: Path) -> None:
    fill(tmp_path, "a.mrc", "s/b.mrc", "s/b.mrc.mdoc", "t/c.mrc")
    tree = tree_of(tmp_path)
    tree.walk(every_file=True)
    (tmp_path / "s/b.mrc").unlink()
    shutil.rmtree(tmp_path / "t")
    assert sorted(tree.walk(every_file=False).gone) == [
        ("s/b.mrc", "s/b.mrc"),
        ("t/c.mrc", "t/c.mrc"),
    ]


def test_a_folder_with_a_coarse_clock_is_listed_again(tmp_path: Path) -> None:
    fill(tmp_path, "s/a.mrc")
    tree = tree_of(tmp_path)
    tree.walk(every_file=False)
    before = (tmp_path / "s").stat()
    fill(tmp_path, "s/b.mrc")
    os.utime(tmp_path / "s", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert members(tree.walk(every_file=False)) == ["s/b.mrc"]


def test_no_link_is_followed_and_nothing_special_counts(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "data"
    fill(outside, "secret.mrc")
    fill(root, "s/a.mrc", ".snapshot/b.mrc")
    (root / "s" / "loop").symlink_to(root)
    (root / "s" / "out").symlink_to(outside)
    (root / "s" / "link.mrc").symlink_to(outside / "secret.mrc")
    (root / "s" / "dangling.mrc").symlink_to(outside / "nothing")
    (root / "s" / "folder.mrc").mkdir()
    os.mkfifo(root / "s" / "fifo.mrc")
    tree = tree_of(root)
    assert members(tree.walk(every_file=True)) == ["s/a.mrc"]
    for relative in ("s/link.mrc", "s/fifo.mrc", "s/loop", "s/out", ".snapshot/b.mrc", ".snapshot"):
        assert tree.look(relative) == []


def test_a_linked_acquisition_directory_is_fine(tmp_path: Path) -> None:
    fill(tmp_path / "data", "s/a.mrc")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert members(tree_of(tmp_path / "link").walk(every_file=True)) == ["s/a.mrc"]


def test_strange_names_survive(tmp_path: Path) -> None:
    names = [
        os.fsdecode(raw) for raw in (b"a\nb.mrc", b"\x1b[31m.mrc", b"\xff\xfe.mrc", b"a b'\".mrc")
    ]
    fill(tmp_path, *(f"s{name}/{name}" for name in names))
    assert members(tree_of(tmp_path).walk(every_file=True)) == sorted(
        f"s{name}/{name}" for name in names
    )


def test_look_sees_a_file_or_a_whole_folder(tmp_path: Path) -> None:
    fill(tmp_path, "s/a.mrc", "s/g/b.mrc", "s/notes.txt")
    tree = tree_of(tmp_path)
    assert [seen.member for seen in tree.look("s/a.mrc")] == ["s/a.mrc"]
    assert sorted(seen.member for seen in tree.look("s")) == ["s/a.mrc", "s/g/b.mrc"]
    assert tree.look("s/notes.txt") == tree.look("s/gone.mrc") == tree.look("gone") == []
    assert members(tree.walk(every_file=True)) == ["s/a.mrc", "s/g/b.mrc"]
    assert tree.asked_s is None


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "is not there"),
        (lambda path: path.write_bytes(b""), "is not a directory"),
        (lambda path: path.symlink_to(path), "cannot be listed"),
    ],
)
def test_a_directory_that_cannot_be_scanned_stalls(
    tmp_path: Path, make: object, sentence: str
) -> None:
    path = tmp_path / "data"
    assert callable(make)
    make(path)
    tree = tree_of(path)
    with pytest.raises(Stalled, match=sentence) as caught:
        tree.walk(every_file=True)
    assert str(path) in str(caught.value)
    path.unlink(missing_ok=True)
    fill(path, "s/a.mrc")
    assert members(tree.walk(every_file=True)) == ["s/a.mrc"]


def test_a_directory_that_may_not_be_read_stalls(nobodys_path: Path) -> None:
    root = nobodys_path / "data"
    fill(root, "s/a.mrc")
    root.chmod(0o000)

    def stalled() -> str:
        try:
            tree_of(root).walk(every_file=True)
        except Stalled as error:
            return str(error)
        return ""

    assert "may not be read" in as_nobody(stalled)
    root.chmod(0o755)


def test_a_folder_that_may_not_be_read_does_not_stop_the_others(nobodys_path: Path) -> None:
    fill(nobodys_path, "s/a.mrc", "t/b.mrc")
    (nobodys_path / "s").chmod(0o000)

    def walk() -> tuple[list[str], tuple[str, ...]]:
        tree = tree_of(nobodys_path)
        tree.walk(every_file=True)
        return members(tree.walk(every_file=True)), tree.unreadable_folders

    assert as_nobody(walk) == (["t/b.mrc"], ("s/",))
    (nobodys_path / "s").chmod(0o755)


def test_a_share_that_is_suddenly_empty_is_doubted_for_a_while(tmp_path: Path) -> None:
    root, away = tmp_path / "data", tmp_path / "away"
    fill(root, "s/a.mrc")
    clock = Clock()
    tree = tree_of(root, clock)
    tree.walk(every_file=True)
    (root / "s").rename(away)
    for seconds in (0, 10, 29):
        clock.now_s = float(seconds)
        with pytest.raises(Stalled, match="suddenly empty"):
            tree.walk(every_file=False)
    away.rename(root / "s")
    assert tree.walk(every_file=False).gone == []
    (root / "s").rename(away)
    clock.now_s = 100.0
    with pytest.raises(Stalled):
        tree.walk(every_file=False)
    clock.now_s = 131.0
    assert tree.walk(every_file=True).gone == [("s/a.mrc", "s/a.mrc")]
    assert tree.walk(every_file=True).gone == []


def test_a_directory_that_is_empty_from_the_start_is_fine(tmp_path: Path) -> None:
    tree = tree_of(tmp_path)
    for first in (True, False, False):
        assert tree.walk(every_file=True) == Walk(is_first=first)


def test_a_new_mount_is_read_anew(tmp_path: Path) -> None:
    root = tmp_path / "data"
    fill(root, "s/a.mrc")
    tree = tree_of(root)
    tree.walk(every_file=True)
    before = tree.identity
    root.rename(tmp_path / "old")
    fill(root, "s/a.mrc", "s/b.mrc")
    walk = tree.walk(every_file=False)
    assert members(walk) == ["s/a.mrc", "s/b.mrc"]
    assert walk.gone == []
    assert walk.is_first
    assert tree.identity != before
    assert not tree.walk(every_file=True).is_first


def test_an_error_of_the_share_stalls_and_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "s/a.mrc", "t/b.mrc")
    tree = tree_of(tmp_path)
    tree.walk(every_file=True)
    real = os.scandir

    def broken(path: Path) -> object:
        if Path(path).name == "t":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(path)

    monkeypatch.setattr(os, "scandir", broken)
    fill(tmp_path, "s/c.mrc", "u/d.mrc")
    with pytest.raises(Stalled, match="Stale file handle") as caught:
        tree.walk(every_file=False)
    assert members(caught.value.walk) == ["s/c.mrc", "u/d.mrc"], "the other folders go on"
    assert caught.value.walk.gone == []
    fill(tmp_path, "t/e.mrc")
    monkeypatch.undo()
    walk = tree.walk(every_file=False)
    assert members(walk) == ["t/e.mrc"]
    assert walk.gone == []
    assert len(tree.walk(every_file=True).seen) == 5


def test_a_folder_that_is_suddenly_empty_is_doubted_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "s/a.mrc", "s/b.mrc", "t/c.mrc")
    clock = Clock()
    tree = tree_of(tmp_path, clock)
    tree.walk(every_file=True)
    for name in ("a", "b"):
        (tmp_path / f"s/{name}.mrc").rename(tmp_path / f"{name}.away")
    for seconds in (0, 10, 29):
        clock.now_s = float(seconds)
        assert tree.walk(every_file=False).gone == []
    clock.now_s = 30.0
    assert sorted(tree.walk(every_file=False).gone) == [
        ("s/a.mrc", "s/a.mrc"),
        ("s/b.mrc", "s/b.mrc"),
    ]
    assert tree.files_seen == 3


def test_a_name_may_become_something_else(tmp_path: Path) -> None:
    """A folder in the place of a file, a file in that of a pipe: all that is looked into is new."""
    fill(tmp_path, "s/a.mrc", "s/notes", "s/b.mrc")
    os.mkfifo(tmp_path / "s/c.mrc")
    tree = tree_of(tmp_path)
    tree.walk(every_file=True)
    for name in ("a.mrc", "notes", "c.mrc"):
        (tmp_path / "s" / name).unlink()
    fill(tmp_path, "s/a.mrc/d.mrc", "s/notes/e.mrc", "s/c.mrc")
    walk = tree.walk(every_file=False)
    assert members(walk) == ["s/a.mrc/d.mrc", "s/c.mrc", "s/notes/e.mrc"]
    assert walk.gone == [("s/a.mrc", "s/a.mrc")]
    assert (tree.files_seen, tree.files_ignored) == (4, 0)
