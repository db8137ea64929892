"""The layouts by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from monitor.simulate import stacks
from monitor.simulate.custom import custom
from monitor.simulate.frames import frames
from monitor.simulate.pacetomo import pacetomo
from monitor.simulate.script import Script
from monitor.simulate.session import Session
from monitor.simulate.tomography5 import tomography5

_IN_TURN = ("serialem", "frames-tiff", "tomography5", "pacetomo", "frames-eer", "both")
"""Of a mixed tree; `both`: a stack, and movies of the same exposures."""


def _mixed(session: Session) -> Script:
    """Let the series of several programs land side by side, each in a folder of its own."""
    whole, folder = session.request, session.folder
    for at, name in enumerate(_IN_TURN):
        series = len(range(at, whole.series, len(_IN_TURN)))
        if series:
            session.request = replace(whole, series=series)
            session.folder = folder / name
            yield from SCRIPTS[name](session)
    session.request, session.folder = whole, folder


SCRIPTS: dict[str, Callable[[Session], Script]] = {
    "serialem": stacks.serialem,
    "serialem-bidirectional": stacks.serialem_bidirectional,
    "serialem-resumed": stacks.serialem_resumed,
    "pacetomo": pacetomo,
    "frames-tiff": lambda session: frames(session, "tiff"),
    "frames-tiff-4bit": lambda session: frames(session, "tiff-4bit"),
    "frames-mrc": lambda session: frames(session, "mrc"),
    "frames-eer": lambda session: frames(session, "eer"),
    "tomography5": lambda session: tomography5(session, "Fractions.mrc"),
    "tomography5-5.7": lambda session: tomography5(session, "fractions.tiff"),
    "tomography5-eer": lambda session: tomography5(session, "EER.eer"),
    "custom": custom,
    "mixed": _mixed,
    "both": stacks.serialem_with_frames,
}
