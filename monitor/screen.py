"""What a person reads on the terminal: a line for each message, bars, tables; plain in a pipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from monitor.messages import LamellaMessage, Message, StatusMessage, TiltMessage

_EIGHTHS = " ▏▎▍▌▋▊▉█"
VERDICT_STYLE = {"skip": "bold red", "keep": "green", "undecided": "yellow"}


def console() -> Console:
    """Make a console that drops colours and boxes' width limits where no terminal is attached."""
    found = Console(highlight=False)
    if not found.is_terminal:
        found = Console(highlight=False, no_color=True, width=140)
    return found


def bar(percent: float | None, full_percent: float = 25.0, width: int = 10) -> str:
    """Draw a percentage as a bar of block characters; empty where there is no percentage."""
    if percent is None:
        return "·" * width
    eighths = round(min(1.0, percent / full_percent) * width * 8)
    whole, part = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[part] if part else "")).ljust(width)


def percent_text(percent: float | None) -> str:
    """Write a percentage, or a dash where nothing was measured."""
    return "-" if percent is None else f"{percent:.1f} %"


def interval_text(low: float | None, high: float | None) -> str:
    """Write an interval of percentages."""
    return "" if low is None or high is None else f"{low:.1f}-{high:.1f}"


def message_line(message: Message) -> str:
    """Put a message on one line."""
    if isinstance(message, TiltMessage):
        ice, tilt = message.ice, message.tilt
        flags = f"  [{', '.join(message.quality.flags)}]" if message.quality.flags else ""
        angle = "?" if tilt.angle_deg is None else f"{tilt.angle_deg:+.1f}°"
        return (
            f"{message.seq:6d}  {plain(tilt.lamella):28s} {angle:>7s}  {bar(ice.percent)} "
            f"{percent_text(ice.percent):>7s} "
            f"({interval_text(ice.percent_low, ice.percent_high) or 'not measured'}){flags}"
        )
    if isinstance(message, LamellaMessage):
        return f"{message.seq:6d}  {plain(message.lamella):28s} {message.verdict:>9s}  " + (
            message.explanation
        )
    if isinstance(message, StatusMessage):
        return f"{message.state} {message.reason}".strip()
    raise TypeError(f"no line for {type(message).__name__}")


def show_status(status: Mapping[str, Any]) -> None:
    """Print the status of a daemon, the most important in one sentence."""
    screen = console()
    screen.print(in_short(status), markup=False, soft_wrap=True)
    if status["state"] == "not_running":
        return
    screen.print(
        f"icewatch {status['version']}, up {span_text(status['uptime_s'])}, {status['last_seq']} "
        f"messages; ice above {status.get('skip_above_ice_percent', '?')} % is flagged",
        markup=False,
    )
    if status["lamellae"]:
        screen.print(lamella_table(status["lamellae"]))
    for tilt in status.get("set_aside", ()):
        where = f"{plain(tilt['path'])}, section {tilt['section']}"
        screen.print(f"set aside: {where}: {tilt['reason']}", markup=False)
    for problem in status["problems"]:
        screen.print(f"problem: {plain(problem['path'])}: {problem['sentence']}", markup=False)


def in_short(status: Mapping[str, Any]) -> str:
    """Say in one sentence how a daemon is: state and why, what it runs on, lag, last tilt."""
    name = plain(str(status["microscope"]))
    reason = f" ({plain(str(status['reason']))})" if status["reason"] else ""
    tilt = _last_tilt_text(status.get("last_tilt"))
    if status["state"] == "not_running":
        lived_s = status.get("last_lived_s_ago")
        lived = "never ran here"
        if lived_s is not None:
            lived = f"gave its last sign of life {span_text(lived_s)} ago"
        return f"{name}: not running{reason}; it {lived}; {tilt}."
    mode = f", mode {status['mode']}" if status.get("mode") else ""
    backend = status["backend"] or "backend loading"
    return f"{name}: {status['state']}{reason}, {backend}{mode}; {_lag_text(status)}; {tilt}."


def _lag_text(status: Mapping[str, Any]) -> str:
    count = status["backlog"]
    if not count:
        return "nothing waits"
    waited = span_text(status["oldest_unprocessed_s"])
    return f"{count} file{'s wait' if count > 1 else ' waits'}, the oldest for {waited}"


def _last_tilt_text(tilt: Mapping[str, Any] | None) -> str:
    if not tilt:
        return "no tilt yet"
    angle = "" if tilt["angle_deg"] is None else f" {tilt['angle_deg']:+.1f}°"
    ice = tilt["ice_percent"]
    read = "not measurable" if ice is None else f"{ice:.1f} % ice"
    return (
        f"last tilt {plain(tilt['lamella'])}{angle} ({read}) {span_text(tilt['seconds_ago'])} ago"
    )


def span_text(seconds: float) -> str:
    """Write a span of time in the unit that fits it."""
    for name, length_s in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {name}"
    return f"{seconds:.0f} s"


def lamella_table(lamellae: list[dict[str, Any]]) -> Table:
    """Lay out the newest word on each lamella."""
    table = Table(box=None, pad_edge=False)
    for heading in ("lamella", "tilts", "ice", "", "90 % interval", "verdict"):
        table.add_column(heading, justify="right" if heading in ("tilts", "ice") else "left")
    for one in lamellae:
        verdict = one["verdict"]
        table.add_row(
            escape(plain(one["lamella"])),
            str(one["tilts_seen"]),
            percent_text(one["ice_percent"]),
            bar(one["ice_percent"]),
            interval_text(one["ice_percent_low"], one["ice_percent_high"]),
            f"[{VERDICT_STYLE[verdict]}]{verdict}[/]",
        )
    return table


def plain(name: str) -> str:
    """Show a name without what could steer a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)
