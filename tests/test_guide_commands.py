"""Every icewatch command that a guide shows is understood as it stands, options and all."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from monitor.cli import app

REPOSITORY = Path(__file__).resolve().parents[1]
GUIDES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "deploy").rglob("*.md")])
_PROGRAM = re.compile(r"(?:^|[\s;&|(])(?:\S*/)?icewatch (?=[a-z])")


def shown(guide: Path) -> list[str]:
    """Give the commands in the code blocks of a guide, continued lines joined."""
    text = guide.read_text("utf-8")
    blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    code = "\n".join(code for language, code in blocks if language in ("", "sh"))
    lines = code.replace("\\\n", " ").splitlines()
    found = [line[at.end() :] for line in lines for at in _PROGRAM.finditer(line)]
    return [re.split(r"\s+#|[;&|>)]", one)[0].strip() for one in found]


COMMANDS = [(guide, words) for guide in GUIDES for words in shown(guide)]


@pytest.mark.parametrize(
    ("guide", "words"), COMMANDS, ids=[f"{guide.name}: {words}" for guide, words in COMMANDS]
)
def test_a_command_of_a_guide_is_understood(guide: Path, words: str) -> None:
    understand(words)


def understand(words: str) -> None:
    """Parse a command line down to its sub-command; raises what the command would print."""
    command: Any = typer.main.get_command(app)
    context = None
    left = shlex.split(words)
    while True:
        context = command.make_context(command.name, left, parent=context)
        if not hasattr(command, "resolve_command"):
            return
        left = [*context._protected_args, *context.args]
        if not left:
            return
        name, found, left = command.resolve_command(context, left)
        assert found is not None, name
        command = found


@pytest.mark.parametrize(
    "words", ["scroe A", "score --mask M A", "listen --from-seq many", "simulate A --layuot x"]
)
def test_a_wrong_command_would_be_found_out(words: str) -> None:
    with pytest.raises(typer.TyperException):
        understand(words)


def test_the_readme_shows_commands() -> None:
    assert len(shown(REPOSITORY / "README.md")) >= 10
