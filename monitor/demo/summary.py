"""The end of the demo: what was read against the truth, and whether every way out agrees."""

from __future__ import annotations

import json
import sqlite3
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from monitor.demo.daemon import Places
from monitor.demo.session import RecordedLamella, RecordedSession
from monitor.messages import LamellaMessage, Message, TiltMessage
from monitor.model import Decision
from monitor.screen import VERDICT_STYLE, bar, interval_text, percent_text

Verdicts = dict[str, str]
"""Lamella name to verdict."""


def summarise(
    screen: Console, session: RecordedSession, places: Places, heard: list[Message]
) -> int:
    """Print the summary; returns 0 if all verdicts are right and all ways out agree, else 1."""
    newest = {_name(one): one for one in heard if isinstance(one, LamellaMessage)}
    wrong = [lamella for lamella in session.lamellae if not _right(lamella, newest)]
    screen.print()
    screen.print(_table(session, newest))
    errors = _errors(session, heard)
    if errors:
        screen.print(
            f"\n{len(errors)} tilts; mean absolute error of the ice percentage "
            f"{sum(map(abs, errors)) / len(errors):.2f} percentage points, bias "
            f"{sum(errors) / len(errors):+.2f}."
        )
    agree = _ways_out_agree(screen, places, heard, newest)
    _say_where(screen, places)
    for lamella in wrong:
        screen.print(f"WRONG: {lamella.name} ({lamella.title}) was not judged rightly", style="red")
    return 0 if agree and not wrong and len(errors) == session.tilts else 1


def _name(message: LamellaMessage) -> str:
    return message.series


def _right(lamella: RecordedLamella, newest: dict[str, LamellaMessage]) -> bool:
    found = newest.get(lamella.name)
    return found is not None and (found.verdict is Decision.SKIP) == lamella.icy


def _errors(session: RecordedSession, heard: list[Message]) -> list[float]:
    truth = {
        (lamella.name, round(tilt.angle_deg, 1)): tilt.ice_percent
        for lamella in session.lamellae
        for tilt in lamella.tilts
    }
    return [
        message.ice.percent - truth[message.tilt.series, round(message.tilt.angle_deg or 0.0, 1)]
        for message in heard
        if isinstance(message, TiltMessage) and message.ice.percent is not None
    ]


def _table(session: RecordedSession, newest: dict[str, LamellaMessage]) -> Table:
    table = Table(title="Read against the truth", title_justify="left", box=None, pad_edge=False)
    for heading in (
        "lamella",
        "shows",
        "tilts",
        "ice read",
        "",
        "90 % interval",
        "truth",
        "verdict",
    ):
        table.add_column(heading, justify="right" if heading in ("tilts", "truth") else "left")
    for lamella in session.lamellae:
        found = newest.get(lamella.name)
        if found is None:
            table.add_row(lamella.name, lamella.title, "0", "-", "", "", "", "[red]missing[/]")
            continue
        mark = "✓" if _right(lamella, newest) else "✗"
        table.add_row(
            lamella.name,
            lamella.title,
            str(found.tilts_seen),
            percent_text(found.ice_percent),
            bar(found.ice_percent),
            interval_text(found.ice_percent_low, found.ice_percent_high),
            percent_text(lamella.ice_percent),
            f"[{VERDICT_STYLE[found.verdict]}]{found.verdict}[/] {mark}",
        )
    return table


def _ways_out_agree(
    screen: Console, places: Places, heard: list[Message], newest: dict[str, LamellaMessage]
) -> bool:
    """Compare messages, metrics, journal and verdict file lamella by lamella."""
    by_lamella: Verdicts = {one.lamella: one.verdict.value for one in newest.values()}
    ids = [one.tilt.id for one in heard if isinstance(one, TiltMessage)]
    tilts = len(set(ids))
    others = {
        "metrics": (_scraped(places), None),
        "journal": _journalled(places),
        "verdicts.json": (_written(places), None),
    }
    agree = len(ids) == tilts
    for name, (verdicts, count) in others.items():
        same = verdicts == by_lamella and count in (None, tilts)
        agree = agree and same
        if not same:
            screen.print(f"WRONG: {name} and the messages differ: {verdicts}", style="red")
    if agree:
        screen.print(
            f"Messages, metrics, journal and verdict file agree on {tilts} tilts and "
            f"{len(by_lamella)} verdicts; each tilt was published once."
        )
    return agree


def _scraped(places: Places) -> Verdicts:
    with urllib.request.urlopen(f"http://{places.metrics_address}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        sample.labels["lamella"]: sample.labels["verdict"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "icewatch_lamella_verdict" and sample.value == 1.0
    }


def _journalled(places: Places) -> tuple[Verdicts, int]:
    path = places.state / "journal.sqlite3"
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as db:
        verdicts = dict(db.execute("SELECT lamella, decision FROM verdicts").fetchall())
        count = int(db.execute("SELECT count(*) FROM tilts").fetchone()[0])
    db.close()
    return verdicts, count


def _written(places: Places) -> Verdicts:
    path: Path = places.state / "verdicts" / "verdicts.json"
    lamellae = json.loads(path.read_text("utf-8"))["lamellae"]
    return {one["lamella"]: one["verdict"] for one in lamellae}


def _say_where(screen: Console, places: Places) -> None:
    rows = {
        "messages": f"{places.zmq_endpoint} (while it ran; all are in the journal)",
        "metrics": f"http://{places.metrics_address}/metrics (while it ran)",
        "journal": str(places.state / "journal.sqlite3"),
        "verdicts": str(places.state / "verdicts"),
        "overlays": str(places.state / "overlays"),
        "tilts": str(places.acquisition),
        "log": str(places.log),
    }
    screen.print("\nWhere everything was:")
    for name, where in rows.items():
        screen.print(f"  {name:9s} {where}", markup=False, soft_wrap=True)
