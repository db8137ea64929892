"""The model: which exposures there are, and what was published of them."""

from __future__ import annotations

from engines.mdoc_text import serialem_time
from monitor.messages import TiltMessage, TiltPart
from monitor.sinks.protocol import Outgoing
from tests.pretend_daemon import CODES_PER_PERCENT
from tests.pretend_session import Exposure, Series, Server

_BELIEVED_YEARS = range(1990, 2101)


class Truth:
    """Compares what leaves the daemon with what the microscope did."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.wrong: list[str] = []
        """One sentence for each promise that was broken."""
        self.published: dict[int, TiltPart] = {}
        """What was said of each exposure, by its code."""
        self._bodies: dict[int, bytes] = {}

    def sent(self, outgoing: Outgoing) -> None:
        """Take a message as a subscriber would: what comes again, comes byte for byte."""
        before = self._bodies.get(outgoing.seq)
        self._bodies[outgoing.seq] = outgoing.body
        if before is not None:
            if before != outgoing.body:
                self.wrong.append(f"seq {outgoing.seq} was sent with two contents")
        elif isinstance(outgoing.message, TiltMessage):
            self._check(outgoing.message)

    def _check(self, message: TiltMessage) -> None:
        tilt, percent = message.tilt, message.ice.percent
        code = -1 if percent is None else round(percent * CODES_PER_PERCENT)
        one = self._server.exposures.get(code)
        if one is None:
            self.wrong.append(f"no such pixels: {tilt.id} {percent} {message.quality.flags}")
            return
        if code in self.published:
            self.wrong.append(f"doubled: {one} as {self.published[code].id} and {tilt.id}")
        self.published[code] = tilt
        if not one.was_complete:
            self.wrong.append(f"never complete: {one} as {tilt.id}")
        right_time = tilt.acquired_at in (one.when.isoformat(), None)
        right_angle = tilt.angle_deg is not None and abs(tilt.angle_deg - one.angle_deg) < 0.02
        if not (right_time and right_angle and tilt.path in one.paths):
            self.wrong.append(f"wrong pixels: those of {one} as {tilt.id}")

    def lost(self, series: Series) -> list[Exposure]:
        """List what lies there complete, and was not published."""
        missing = series.there() - self.published.keys()
        found = [self._server.exposures[code] for code in missing]
        return [one for one in found if not self._passes_for_another(one)]

    def _passes_for_another(self, one: Exposure) -> bool:
        """Whether nobody can tell a movie from another that was published under its name.

        That is so where one of the two had no mdoc with a time, which alone tells them apart.
        """
        others = [other for other in self.published.values() if other.path in one.paths]
        if not one.is_movie or not others:
            return False
        mdoc = self._server.root / (one.paths[0] + ".mdoc")
        line = f"DateTime = {serialem_time(one.when)}"
        dated = mdoc.exists() and line in mdoc.read_text().splitlines()
        has_time = dated and one.when.year in _BELIEVED_YEARS
        return any(other.acquired_at is None or not has_time for other in others)

    def seqs_with_gaps(self) -> str:
        """Say which seqs came if some are missing."""
        seqs = sorted(self._bodies)
        return "" if seqs == list(range(1, len(seqs) + 1)) else f"gaps in the seqs: {seqs}"
