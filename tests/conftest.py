"""Fixtures that more than one test module uses."""

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.privileges import NOBODY

REALDATA = Path(__file__).resolve().parents[1].parent / "shared/realdata"


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder with real micrographs and mdocs; not part of the repository."""
    if not REALDATA.is_dir():
        pytest.skip("needs the real data in ../shared/realdata, which is not there")
    return REALDATA


@pytest.fixture
def nobodys_path() -> Iterator[Path]:
    """Give a folder that `as_nobody` can reach and write in (`tmp_path` is root's alone)."""
    folder = Path(tempfile.mkdtemp(prefix="icewatch-test-"))
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what a test printed that is no text: it could not be sent from worker to runner."""
    report = yield
    report.sections = [
        (name, shown.encode("utf-8", "backslashreplace").decode())
        for name, shown in report.sections
    ]
    return report
