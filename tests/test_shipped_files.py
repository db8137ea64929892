"""What the repository ships beside its code names things that exist."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from monitor.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
EXAMPLES = sorted((REPOSITORY / "deploy").rglob("*.toml"))
UNITS = sorted((REPOSITORY / "systemd").glob("*.service"))
GUIDES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "deploy/README.md"]


def icewatch(*arguments: str) -> subprocess.CompletedProcess[str]:
    module, function = PROJECT["scripts"]["icewatch"].split(":")
    code = f"import sys; from {module} import {function}; sys.exit({function}())"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)


def exec_start(unit: Path) -> list[str]:
    line = re.search(r"^ExecStart=(.+)$", unit.read_text("utf-8"), re.MULTILINE)
    assert line is not None
    return line[1].split()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_pass_check(example: Path) -> None:
    done = icewatch("check", str(example))
    assert done.returncode == 0, done.stderr


def keys_of(tables: dict[str, Any], above: str = "") -> dict[str, object]:
    """Every key with the names of the tables that it is in; those without a value left out."""
    found: dict[str, object] = {}
    for name, value in tables.items():
        if isinstance(value, dict):
            found |= keys_of(value, f"{above}{name}.")
        elif value is not None:
            found[above + name] = value
    return found


def test_the_example_shows_every_key_with_its_default() -> None:
    text = (REPOSITORY / "deploy/icewatch.example.toml").read_text("utf-8")
    own = {"microscope", "acquisition.directory", "state.directory", "verdict.directory"}
    shown = keys_of(tomllib.loads(text))
    smallest = {"acquisition": {"directory": "/a"}, "state": {"directory": "/b"}}
    settings = Settings.model_validate(smallest).model_dump(mode="json")
    settings["verdict"].pop("policy")
    expected = keys_of(settings) | {"verdict.directory": ""}
    assert shown.keys() == expected.keys()
    assert {k: shown[k] for k in shown.keys() - own} == {
        k: expected[k] for k in expected.keys() - own
    }
    for unset in ("reference", "pattern", "table"):
        assert f"\n# {unset} = " in text


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_start_the_real_command(unit: Path) -> None:
    program, command, *_ = exec_start(unit)
    assert Path(program).name in PROJECT["scripts"]
    assert icewatch(command, "--help").returncode == 0


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_the_units(unit: Path, tmp_path: Path) -> None:
    verify = which("systemd-analyze")
    if verify is None:
        pytest.skip("needs Debian package systemd")
    # The program is not installed where the unit looks for it: any other that is there will do.
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text("utf-8").replace(exec_start(unit)[0], "/bin/true"))
    command = [verify, "verify", "--man=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if unit.stem in line]


def test_guides_name_make_targets_that_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = {
        name for guide in GUIDES for name in re.findall(r"(?<!keys )make ([a-z]+)", code_of(guide))
    }
    assert {"demo", "test"} <= set(re.findall(r"make ([a-z]+)", code_of(REPOSITORY / "README.md")))
    assert named <= targets


def test_guides_name_commands_that_exist() -> None:
    named = {
        name for guide in GUIDES for name in re.findall(r"icewatch ([a-z]+)\b", code_of(guide))
    }
    assert named
    unknown = {name for name in sorted(named) if icewatch(name, "--help").returncode != 0}
    assert not unknown


def code_of(guide: Path) -> str:
    """What a guide sets as code, within the text and in blocks."""
    text = guide.read_text("utf-8")
    blocks = re.findall(r"^ *```.*?\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S))
    return "\n".join([*blocks, *spans])


def test_guides_link_to_files_that_exist() -> None:
    for guide in GUIDES:
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", guide.read_text("utf-8"))
        missing = [link for link in links if not (guide.parent / link).exists()]
        assert not missing, guide


def test_the_changelog_begins_with_this_version() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## (\S+)", changelog, re.MULTILINE)
    assert versions[0] == PROJECT["version"]


def test_constraints_pin_what_the_project_asks_for() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.!]+", pin) for pin in pins)
    pinned = {normal(pin.partition("==")[0]) for pin in pins}
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *extras["dev"], *extras["train"]]
    assert {normal(re.split(r"[<>=;\[ ]", name)[0]) for name in wanted} <= pinned


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"sound\n", ""),
        (b"cut", "no newline at the end"),
        (b"more\n\n", "empty lines at the end"),
        (b"from\r\nWindows\r\n", "Windows line ends"),
        (b"<" * 7 + b" ours\n", "merge conflict"),
        (b"x" * 1_000_001 + b"\n", "more than 1 MB"),
    ],
)
def test_commits_refuse_unsound_files(content: bytes, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(content)
    command = [sys.executable, str(REPOSITORY / ".ci/check_files.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) == (fault == "")
    assert fault in done.stdout
