"""What a pretend session says: the messages of a daemon, without microscope, images or network."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from engines.icemap import Flag
from engines.microscope import dose_symmetric
from monitor.journal import Committed
from monitor.messages import Stamp, lamella_message, tilt_message, utc_now
from monitor.model import Decision, IceReading, LamellaHistory, Tilt, TiltId
from monitor.policies import MeanOverTiltsSettings

INTERVAL_S = 26.0
"""From one tilt to the next, in real time."""
_BEGINS_AT = datetime.datetime(2026, 1, 1, 10, 0, 0)
_SESSION = "2026-01-01_simulated"
_SKIP_ABOVE_PERCENT = 10.0
_UNMEASURABLE_EACH = 23
_PIXEL_SIZE_ANGSTROM = 3.375
_DOSE_E_PER_A2 = 3.0
_STEP_DEG = 3.0
_REACH_DEG = 60.0
_MODEL = ("simulated", "1", "onnxruntime")
"""Name and version of the bundle, and backend."""


@dataclass(frozen=True, slots=True)
class Part:
    """How long a pretend session is, and what is drawn for it."""

    lamellae: int = 4
    tilts: int = 41
    seed: int = 0


class MadeUp:
    """A journal in memory, filled tilt by tilt; what the stream wants of the real one."""

    def __init__(self, microscope: str) -> None:
        """Begin empty."""
        self._microscope = microscope
        self._messages: list[Committed] = []
        self._newest: dict[str, Committed] = {}
        self._readings: dict[str, list[tuple[Tilt, IceReading]]] = {}
        self._decisions: dict[str, Decision] = {}
        self._policy = MeanOverTiltsSettings().build(_SKIP_ABOVE_PERCENT)

    def add(self, tilt: Tilt, reading: IceReading, boot_id: str) -> list[Committed]:
        """Commit a tilt and the verdict that follows."""
        verdict = self._policy.decide(self._history(tilt, reading))
        self._decisions[tilt.lamella] = verdict.decision
        first = self.last_seq() + 1
        stamps = [
            Stamp(seq=seq, boot_id=boot_id, time=utc_now(), microscope=self._microscope)
            for seq in (first, first + 1)
        ]
        messages = (
            tilt_message(stamps[0], tilt, reading, latency_s=0.4),
            lamella_message(stamps[1], tilt, verdict),
        )
        committed = [Committed(one.seq, one.topic, one.body()) for one in messages]
        self._messages += committed
        self._newest[tilt.lamella] = committed[-1]
        return committed

    def _history(self, tilt: Tilt, reading: IceReading) -> LamellaHistory:
        readings = self._readings.setdefault(tilt.lamella, [])
        readings.append((tilt, reading))
        previous = self._decisions.get(tilt.lamella, Decision.UNDECIDED)
        return LamellaHistory(tilt.lamella, tuple(readings), previous, tilt.tilts_expected)

    def messages_from(self, seq: int, limit: int) -> list[Committed]:
        """Give at most `limit` messages from `seq` on."""
        first = max(0, seq - 1)
        return self._messages[first : first + limit]

    def lamella_messages(self, session: str) -> list[Committed]:
        """Give the newest message of every lamella."""
        return sorted(self._newest.values(), key=lambda one: one.seq)

    def running_session(self) -> str:
        """Name the session."""
        return _SESSION

    def last_seq(self) -> int:
        """Give the seq of the newest message."""
        return len(self._messages)


def tilts(part: Part) -> Iterator[tuple[Tilt, IceReading]]:
    """Give each tilt of a session and what was read in it."""
    random = Random(part.seed)
    count = 0
    for number in range(part.lamellae):
        name, grid = f"Position_{number + 1}", f"grid{number % 2 + 1}"
        ice_percent = random.choice((0.5, 2.0, 6.0, 15.0, 35.0))
        for order, angle_deg in enumerate(_angles_deg(part.tilts)):
            at = _BEGINS_AT + datetime.timedelta(seconds=round(INTERVAL_S * count))
            tilt = _tilt(grid, name, order, angle_deg, at.isoformat(), part.tilts)
            count += 1
            yield tilt, _reading(random, ice_percent, count % _UNMEASURABLE_EACH != 0)


def _angles_deg(count: int) -> list[float]:
    step_deg = min(_STEP_DEG, 2.0 * _REACH_DEG / max(count, 2))
    return dose_symmetric(0.0, step_deg, step_deg * count)[:count]


def _tilt(grid: str, name: str, order: int, angle_deg: float, at: str, expected: int) -> Tilt:
    key = f"{_SESSION}/{grid}/{name}"
    return Tilt(
        id=TiltId(key, angle_deg, at),
        session=_SESSION,
        grid=grid,
        lamella=key,
        series=name,
        path=f"{key}.mrc",
        section=order,
        angle_deg=angle_deg,
        order=order,
        acquired_at=at,
        pixel_size_angstrom=_PIXEL_SIZE_ANGSTROM,
        exposure_dose_e_per_A2=_DOSE_E_PER_A2,
        tilts_expected=expected,
    )


def _reading(random: Random, ice_percent: float, measurable: bool) -> IceReading:
    if not measurable:
        flags = (str(Flag.NO_ELECTRONS),)
        return IceReading(None, None, None, {}, 0.0, flags, False, *_MODEL)
    percent = min(100.0, ice_percent * random.lognormvariate(0.0, 0.3))
    low, high = 0.7 * percent, min(100.0, 1.3 * percent + 0.5)
    phases = {"hexagonal": 0.8, "cubic": 0.15, "stacking_disordered": 0.05}
    valid_area_percent = round(random.uniform(70.0, 98.0), 1)
    percents = (round(percent, 2), round(low, 2), round(high, 2))
    return IceReading(*percents, phases, valid_area_percent, (), True, *_MODEL)
