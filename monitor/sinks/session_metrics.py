"""What Prometheus is told of the running session: each lamella, each grid, and how it goes on."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from monitor.messages import LamellaMessage, TiltMessage
from monitor.model import Decision

MAX_LAMELLAE = 200
"""Lamellae with series of their own, those that were heard of last; the journal has all of them."""
MAX_GRIDS = 40
"""More grids than a microscope holds at once; folders beyond it are counted under `OTHER`."""
MAX_WORDS = 40
"""Label values of one counter; a closed list is shorter, and `OTHER` takes what is beyond."""
OTHER = "other"
_ICE_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class RecalledLamella:
    """What the journal knows of a lamella."""

    message: LamellaMessage
    newest_tilt_percent: float | None
    """Of the newest tilt that could be measured."""


class Bounded:
    """Lets a limited number of label values through, and names every other one alike."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, word: str) -> str:
        """Give the label value for a word."""
        if word not in self._known and len(self._known) >= self._limit:
            return OTHER
        self._known.add(word)
        return word

    def clear(self) -> None:
        """Forget all words."""
        self._known.clear()


class SessionMetrics:
    """Series of the running session; those of the one before go when a new one begins."""

    def __init__(
        self,
        microscope: str,
        registry: CollectorRegistry,
        recall: Callable[[str], Mapping[str, RecalledLamella]],
        session: str,
    ) -> None:
        """Declare the metrics, and show what `recall` knows of `session`."""
        self._scope = microscope
        self._registry = registry
        self._recall = recall
        self._session = ""
        self._lamellae: dict[str, None] = {}
        """Those with series, the one heard of last at the end."""
        self._verdicts: dict[str, tuple[str, Decision]] = {}
        """Grid and verdict of every lamella of the session."""
        self._held: Tally[tuple[str, Decision]] = Tally()
        """How many lamellae of each grid have each verdict."""
        self._grids = Bounded(MAX_GRIDS)
        self._flags_known = Bounded(MAX_WORDS)
        self._declare_lamellae()
        self._declare_session()
        self._declare_counters()
        self.enter(session)

    def _declare_lamellae(self) -> None:
        self._tilt_ice = self._gauge(
            "icewatch_tilt_ice_ratio", "Ice share of the newest measured tilt", "lamella"
        )
        self._lamella_ice = self._gauge(
            "icewatch_lamella_ice_ratio", "Mean ice share over the measured tilts", "lamella"
        )
        self._verdict = self._gauge(
            "icewatch_lamella_verdict",
            "1 for the verdict that holds, 0 for the others",
            *("lamella", "verdict"),
        )
        self._seen = self._gauge(
            "icewatch_lamella_tilts_seen", "Tilts of the lamella that were read", "lamella"
        )
        self._expected = self._gauge(
            "icewatch_lamella_tilts_expected",
            "Tilts that the microscope announced for the lamella, where it did",
            "lamella",
        )
        self._of_lamella = (self._tilt_ice, self._lamella_ice, self._seen, self._expected)

    def _declare_session(self) -> None:
        self._info = self._gauge(
            "icewatch_session_info", "Constant 1; its label names the running session", "session"
        )
        self._grid_lamellae = self._gauge(
            "icewatch_grid_lamellae",
            "Lamellae of the running session by grid and verdict",
            *("session", "grid", "verdict"),
        )
        self._newest = self._gauge(
            "icewatch_newest_tilt_timestamp_seconds", "When the newest tilt was read"
        )
        self._missing = self._gauge(
            "icewatch_newest_lamella_tilts_missing",
            "Announced tilts that the lamella of the newest tilt still lacks",
        )

    def _declare_counters(self) -> None:
        scope = ("microscope",)
        self._measured = Histogram(
            "icewatch_measured_tilts_ice_ratio",
            "Ice share of each tilt that has a say in verdicts",
            scope,
            registry=self._registry,
            buckets=_ICE_BUCKETS,
        )
        self._measured.labels(self._scope)
        self._outside = Counter(
            "icewatch_tilts_out_of_domain",
            "Tilts that icewatch has no opinion on",
            scope,
            registry=self._registry,
        )
        self._outside.labels(self._scope)
        self._flags = Counter(
            "icewatch_tilt_flags",
            "Tilts by what was remarkable about them",
            ("microscope", "flag"),
            registry=self._registry,
        )

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, ("microscope", *labels), registry=self._registry)

    def enter(self, session: str) -> None:
        """Change to a session, unless it runs already."""
        if session == self._session:
            return
        self._session = session
        self._lamellae.clear()
        self._verdicts.clear()
        self._held.clear()
        self._grids.clear()
        for metric in (*self._of_lamella, self._verdict, self._info, self._grid_lamellae):
            metric.clear()
        self._missing.clear()
        self._info.labels(self._scope, session).set(1)
        for lamella, known in self._recall(session).items():
            self.lamella(known.message)
            self._show_tilt(lamella, known.newest_tilt_percent)

    def tilt(self, message: TiltMessage, *, resent: bool) -> None:
        """Show a tilt; one that an earlier boot sent already is not counted again."""
        self.enter(message.tilt.session)
        self._show_tilt(message.tilt.lamella, message.ice.percent)
        if resent:
            return
        for flag in message.quality.flags:
            self._flags.labels(self._scope, self._flags_known(flag)).inc()
        if not message.quality.in_domain:
            self._outside.labels(self._scope).inc()
        elif message.ice.percent is not None:
            self._measured.labels(self._scope).observe(message.ice.percent / 100.0)

    def lamella(self, message: LamellaMessage) -> None:
        """Show the verdict on a lamella of the running session."""
        if message.session != self._session:
            return
        self._heard_of(message.lamella)
        if message.ice_percent is not None:
            self._lamella_ice.labels(self._scope, message.lamella).set(message.ice_percent / 100.0)
        for decision in Decision:
            held = message.verdict is decision
            self._verdict.labels(self._scope, message.lamella, decision.value).set(held)
        self._show_progress(message)
        self._show_grids(message)

    def _show_progress(self, message: LamellaMessage) -> None:
        seen, expected = message.tilts_seen, message.tilts_expected
        self._seen.labels(self._scope, message.lamella).set(seen)
        if expected is None:
            self._missing.clear()
        else:
            self._expected.labels(self._scope, message.lamella).set(expected)
            self._missing.labels(self._scope).set(max(0, expected - seen))
        self._newest.labels(self._scope).set(datetime.fromisoformat(message.time).timestamp())

    def _show_grids(self, message: LamellaMessage) -> None:
        before = self._verdicts.get(message.lamella)
        grid = before[0] if before else self._grids(message.grid)  # a lamella stays on its grid
        if before:
            self._held[before] -= 1
        self._verdicts[message.lamella] = now = (grid, message.verdict)
        self._held[now] += 1
        for decision in Decision:
            labels = (self._scope, self._session, grid, decision.value)
            self._grid_lamellae.labels(*labels).set(self._held[grid, decision])

    def _show_tilt(self, lamella: str, percent: float | None) -> None:
        if percent is not None:
            self._heard_of(lamella)
            self._tilt_ice.labels(self._scope, lamella).set(percent / 100.0)

    def _heard_of(self, lamella: str) -> None:
        """Make room for a lamella: what runs now must never be the one that is left out."""
        self._lamellae.pop(lamella, None)
        self._lamellae[lamella] = None
        if len(self._lamellae) <= MAX_LAMELLAE:
            return
        oldest = next(iter(self._lamellae))
        del self._lamellae[oldest]
        for metric in self._of_lamella:
            _remove(metric, self._scope, oldest)
        for decision in Decision:
            _remove(self._verdict, self._scope, oldest, decision.value)


def _remove(metric: Gauge, *labels: str) -> None:
    try:
        metric.remove(*labels)
    except KeyError:
        return  # there was no number yet
