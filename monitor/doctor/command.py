"""`icewatch doctor`: what was found, as a table, as plain lines, or as JSON."""

from __future__ import annotations

import json
import sys
import urllib.parse
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from monitor.doctor.examination import FOLDER, examine
from monitor.doctor.finding import Finding, problem
from monitor.errors import ConfigError
from monitor.logs import one_line
from monitor.screen import console

SCHEMA = "icewatch.doctor/1"
_STYLE = {"ok": "green", "warning": "yellow", "problem": "bold red"}
_MARK = {"ok": "OK", "warning": "warning", "problem": "PROBLEM"}


def doctor(config: Path | None, prometheus: str, *, as_json: bool) -> int:
    """Examine one configuration, or all in /etc/icewatch; 0 where no problem was found, else 1."""
    where = urllib.parse.urlsplit(prometheus)
    if where.scheme != "http" or not where.netloc:
        raise ConfigError(
            f"--prometheus '{one_line(prometheus)}' is no address; give one like "
            "http://127.0.0.1:9090"
        )
    configs = [config] if config is not None else _installed()
    found = {path: examine(path, prometheus) for path in configs}
    if not configs:
        cause = f"there is no configuration in {FOLDER}, and none was named"
        remedy = "copy deploy/icewatch.example.toml there, or name one with --config"
        found = {FOLDER: [problem("configuration", cause, remedy)]}
    if as_json:
        sys.stdout.write(json.dumps(_document(found), indent=1) + "\n")
    else:
        for path, findings in found.items():
            _show(path, findings)
    return int(any(one.level == "problem" for all_ in found.values() for one in all_))


def _installed() -> list[Path]:
    try:
        return sorted(FOLDER.glob("*.toml"))
    except OSError as error:
        raise ConfigError(f"{FOLDER} cannot be listed ({error}); name one with --config") from error


def _document(found: dict[Path, list[Finding]]) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "configurations": [
            {"file": str(path), "findings": [_clean(one) for one in findings]}
            for path, findings in found.items()
        ],
    }


def _clean(one: Finding) -> dict[str, str]:
    return {key: one_line(str(value)) for key, value in asdict(one).items()}


def _show(path: Path, findings: list[Finding]) -> None:
    screen = console()
    screen.print(Text(f"{one_line(str(path))}"))
    order = {"problem": 0, "warning": 1, "ok": 2}
    table = Table(box=None, pad_edge=False, show_header=False, expand=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in sorted(findings, key=lambda one: order[one.level]):
        words = Text(one_line(one.cause))
        if one.remedy:
            words.append(f"\n-> {one_line(one.remedy)}", style="bold")
        table.add_row(Text(_MARK[one.level], style=_STYLE[one.level]), Text(one.topic), words)
    screen.print(table)
    _sum_up(screen, findings)


def _sum_up(screen: Console, findings: list[Finding]) -> None:
    problems = sum(one.level == "problem" for one in findings)
    warnings = sum(one.level == "warning" for one in findings)
    if not problems and not warnings:
        screen.print(Text("Nothing is wrong.", style="green"))
        return
    screen.print(Text(f"{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}."))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
