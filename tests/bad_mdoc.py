"""Hostile and broken mdocs: what is wrong, and the bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def _section(z_value: str = "0", tilt: str = "0.0", more: str = "") -> bytes:
    return (
        f"[ZValue = {z_value}]\nTiltAngle = {tilt}\n{more}DateTime = 05-Jan-26  10:00:00\n"
    ).encode()


def _many_sections() -> bytes:
    return b"".join(b"[ZValue = %d]\nTiltAngle = 1\n" % n for n in range(50_000))


BAD_MDOCS: list[tuple[str, Callable[[], bytes]]] = [
    ("nothing at all", lambda: b""),
    ("noise", lambda: np.random.default_rng(0).bytes(100_000)),
    ("zeros", lambda: bytes(100_000)),
    ("a million blank lines", lambda: b"\n" * 10**6),
    ("a line of 10 MB", lambda: b"a" * 10**7),
    ("a line of 10 MB of brackets", lambda: b"[" * 10**7),
    ("a million keys", lambda: b"Key = value\n" * 10**6),
    ("50,000 sections", _many_sections),
    ("a section of 10^20", lambda: _section("99999999999999999999")),
    ("a negative section", lambda: _section("-5")),
    ("a section that is text", lambda: _section("<script>")),
    ("an angle of NaN", lambda: _section(tilt="nan")),
    ("an angle without end", lambda: _section(tilt="inf")),
    ("an angle of 10^999", lambda: _section(tilt="1e999")),
    ("an angle of many digits", lambda: _section(tilt="9" * 5000)),
    (
        "a movie outside of the folder",
        lambda: _section(more="SubFramePath = ../../../etc/passwd\n"),
    ),
    ("a movie that is a device", lambda: _section(more="SubFramePath = /dev/zero\n")),
    ("a movie on another host", lambda: _section(more="SubFramePath = \\\\10.0.0.1\\x\\a.mrc\n")),
    ("a movie named with escape codes", lambda: _section(more="SubFramePath = \x1b[2J\x07.mrc\n")),
    ("wide text", lambda: _section().decode().encode("utf-16")),
    ("a label of 100 kB", lambda: _section(more=f"NavigatorLabel = {'x' * 100_000}\n")),
    ("a label in HTML", lambda: _section(more="NavigatorLabel = <img src=x onerror=alert(1)>\n")),
    ("a date in the year 0", lambda: _section().replace(b"05-Jan-26", b"00-Jan-0000")),
    ("the same section 1000 times", lambda: _section() * 1000),
    ("titles without end", lambda: b"[T = SerialEM: " + b"x" * 10**6),
]
