import os
from pathlib import Path

import pytest

from tests.privileges import NOBODY, as_nobody


def touch(path: Path) -> str:
    try:
        path.touch()
    except PermissionError:
        return "refused"
    return "written"


def test_runs_without_roots_rights() -> None:
    expected = NOBODY if os.geteuid() == 0 else os.geteuid()
    assert as_nobody(os.geteuid) == expected


def test_cannot_write_where_permissions_forbid(nobodys_path: Path) -> None:
    nobodys_path.chmod(0o555)
    assert as_nobody(lambda: touch(nobodys_path / "file")) == "refused"
    nobodys_path.chmod(0o755)
    assert as_nobody(lambda: touch(nobodys_path / "file")) == "written"


def test_what_the_child_raises_fails_the_test() -> None:
    with pytest.raises((AssertionError, FileNotFoundError)):
        as_nobody(lambda: Path("/no-such-file").read_text())
