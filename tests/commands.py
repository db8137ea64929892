"""Runs commands as a shell would, in this process."""

import shlex
import sys

import pytest

from monitor.cli import main


def icewatch(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Run the command in the folder that is current; gives status, output and complaint."""
    monkeypatch.setattr(sys, "argv", ["icewatch", *shlex.split(words)])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, said.out, said.err
