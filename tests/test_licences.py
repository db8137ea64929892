"""The table of licences names every package that users install, as its own metadata do."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageMetadata, metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
ROWS = dict(
    re.findall(
        r"^\| ([\w-]+) \| ([^|]+) \| [^|]+ \|$", (REPOSITORY / "README.md").read_text(), re.M
    )
)
WANTED = [
    re.split(r"[<>=;\[ ]", one)[0]
    for group in (
        PROJECT["dependencies"],
        *(PROJECT["optional-dependencies"][name] for name in ("gpu", "openvino", "train")),
    )
    for one in group
]


def told(about: PackageMetadata) -> str:
    """All that a package says of its licence, in one spelling."""
    fields = ("License-Expression", "License", "Classifier")
    lines = [line.partition("\n")[0] for name in fields for line in about.get_all(name) or []]
    texts = [line for line in lines if not re.match("(?!License)[^:]+ ::", line)]
    return re.sub(r"[^a-z0-9]", "", " ".join(texts).lower().replace("software", ""))


def test_every_package_that_users_install_is_in_the_table() -> None:
    assert set(WANTED) <= ROWS.keys()


@pytest.mark.parametrize("name", WANTED)
def test_the_licence_is_that_of_the_package(name: str) -> None:
    main = re.split(r"[;(]", ROWS[name])[0]
    said = re.sub(r"[^a-z0-9]", "", main.lower().replace("software", ""))
    assert said.removesuffix("20") in told(metadata(name))
