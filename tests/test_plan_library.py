"""Which library is taken, and one sentence with the remedy where none can be."""

import sys
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.plans import library
from engines.plans.card import find_card, printable
from engines.plans.library import Library, find, numbers
from tests.plans import CAPABILITIES, builder, refused

WITHOUT_CAPABILITIES = Library("tensorrt", "11.4.0", SimpleNamespace(), None, deque())


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Hide the libraries that are installed; gives a folder from which others are imported."""
    monkeypatch.setattr(library, "_load", library._load.__wrapped__)
    for name in library.NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    yield tmp_path
    for name in library.NAMES:
        sys.modules.pop(name, None)


def install(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)


def test_says_what_to_install_where_none_is_there(bare: Path) -> None:
    assert "pip install tensorrt " in refused(find, "library_missing")
    for name, package in (("tensorrt", "tensorrt"), ("tensorrt_rtx", "tensorrt-rtx")):
        sentence = refused(partial(find, name), "library_missing")
        assert name in sentence and f"pip install {package} " in sentence


def test_a_library_of_another_name_is_none() -> None:
    assert "tensorrt_rtx" in refused(lambda: find("cuda"), "library_missing")


@pytest.mark.parametrize(
    "code",
    [
        "raise OSError('libnvinfer.so.10: cannot open shared object file')",
        "import nvinfer_of_another_cuda",
        "raise RuntimeError('wrong version')",
        "__version__ = '10.1.0'",
        "a = 1",
    ],
)
def test_a_broken_library_is_named_with_its_fault(bare: Path, code: str) -> None:
    install(bare, "tensorrt", code)
    for named in (None, "tensorrt"):
        assert "--force-reinstall tensorrt" in refused(partial(find, named), "library_broken")
        sys.modules.pop("tensorrt", None)


@pytest.mark.parametrize(("name", "version"), [("tensorrt", "8.6.1"), ("tensorrt_rtx", "1.0.0.21")])
def test_an_old_library_is_refused(bare: Path, name: str, version: str) -> None:
    install(bare, name, f"__version__ = {version!r}")
    sentence = refused(find, "library_old")
    assert version in sentence and "--upgrade" in sentence


def test_a_good_library_is_taken_beside_a_broken_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = builder()
    if "tensorrt" in sys.modules:
        pytest.skip("the library tensorrt is in use here")
    install(tmp_path, "tensorrt", "raise OSError('libnvinfer.so.10: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    assert find() is there, "the library keeps the first logger that it sees: there is one alone"


def test_compute_capabilities_are_those_of_the_library() -> None:
    there = builder()
    known = there.capabilities
    assert known == tuple(sorted(known, key=float))
    for name in known:
        assert there.capability(name) == getattr(
            there.module.ComputeCapability, "SM" + name.replace(".", "")
        )
    for name in set(CAPABILITIES) - set(known):
        sentence = refused(partial(there.capability, name), "capability")
        assert name in sentence and ", ".join(known) in sentence


def test_hopper_is_sent_to_the_full_package() -> None:
    there = builder()
    if "9.0" in there.capabilities:
        pytest.skip(f"{there.label} builds for Hopper")
    assert "use the package tensorrt " in refused(lambda: there.capability("9.0"), "capability")


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=8).filter(lambda text: not text.replace(".", "").isdecimal()))
def test_what_is_no_compute_capability_is_explained(text: str) -> None:
    assert "8.6" in refused(lambda: WITHOUT_CAPABILITIES.capability(text.strip()), "capability")


def test_the_full_package_builds_for_the_card_that_is_there() -> None:
    assert WITHOUT_CAPABILITIES.capabilities == ()
    assert "this machine" in refused(lambda: WITHOUT_CAPABILITIES.capability("8.6"), "capability")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 999), min_size=1, max_size=4))
def test_versions_are_compared_by_number(parts: list[int]) -> None:
    assert numbers(".".join(map(str, parts))) == tuple(parts)


def test_a_machine_without_a_driver_has_no_card() -> None:
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("there is a driver here")
    assert "nvidia-smi" in refused(find_card, "no_gpu")


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=40))
def test_the_name_of_a_card_cannot_steer_a_terminal(name: bytes) -> None:
    assert printable(name).isprintable()
