"""`icewatch bundle compare`: what a shadow read beside what was published, on the same tilts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import typer

from engines.bundle_store import BundleStore
from engines.errors import BundleError
from monitor.bundle_actions import Place
from monitor.bundle_choice import read_choice
from monitor.errors import MonitorError
from monitor.model import Decision, IceReading, LamellaHistory, Tilt, TiltId
from monitor.policies import Policy
from monitor.screen import plain
from monitor.settings import VerdictSettings
from monitor.shadow_journal import Pair, candidates, pairs


@dataclass(frozen=True, slots=True)
class OtherVerdict:
    """A lamella on which the two do not agree."""

    session: str
    lamella: str
    published: str
    shadow: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two bundles on the same tilts; percentages of ice."""

    candidate: str
    tilts: int
    both_measured: int
    only_published_measured: int
    only_shadow_measured: int
    mean_published: float | None
    mean_shadow: float | None
    mean_difference: float | None
    """Shadow less published."""
    mean_absolute_difference: float | None
    largest_difference: float | None
    largest_at: str
    """The tilt where it was found."""
    lamellae: int
    other_verdicts: tuple[OtherVerdict, ...]


def compare(candidate: str, found: Sequence[Pair], policy: Policy) -> Comparison:
    """Compare what two bundles read."""
    measured = [
        (one.published.percent, one.shadow.percent, one.tilt)
        for one in found
        if one.published.percent is not None and one.shadow.percent is not None
    ]
    apart = [(other - one, tilt) for one, other, tilt in measured]
    largest, largest_at = max(apart, key=lambda pair: abs(pair[0]), default=(None, ""))
    lamellae = dict.fromkeys((one.session, one.lamella) for one in found)
    others = (_other_verdict(*names, found, policy) for names in lamellae)
    return Comparison(
        candidate=candidate,
        tilts=len(found),
        both_measured=len(measured),
        only_published_measured=_alone(found, lambda pair: (pair.published, pair.shadow)),
        only_shadow_measured=_alone(found, lambda pair: (pair.shadow, pair.published)),
        mean_published=_mean([one for one, _, _ in measured]),
        mean_shadow=_mean([other for _, other, _ in measured]),
        mean_difference=_mean([one for one, _ in apart]),
        mean_absolute_difference=_mean([abs(one) for one, _ in apart]),
        largest_difference=largest,
        largest_at=largest_at,
        lamellae=len(lamellae),
        other_verdicts=tuple(one for one in others if one is not None),
    )


def _alone(found: Sequence[Pair], order: Callable[[Pair], tuple[IceReading, IceReading]]) -> int:
    both = [order(pair) for pair in found]
    return sum(one.percent is not None and other.percent is None for one, other in both)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _other_verdict(
    session: str, lamella: str, found: Sequence[Pair], policy: Policy
) -> OtherVerdict | None:
    mine = [one for one in found if (one.session, one.lamella) == (session, lamella)]
    said = _verdict(lamella, [one.published for one in mine], policy)
    would = _verdict(lamella, [one.shadow for one in mine], policy)
    return None if said is would else OtherVerdict(session, lamella, said, would)


def _verdict(lamella: str, readings: Sequence[IceReading], policy: Policy) -> Decision:
    """Judge after each tilt, as the daemon does: a verdict hangs on the one before."""
    tilt = Tilt(TiltId("", None, None), "", "", lamella, "", "", 0, None)
    history = LamellaHistory(lamella, (), Decision.UNDECIDED)
    for reading in readings:
        history = replace(history, readings=(*history.readings, (tilt, reading)))
        history = replace(history, previous=policy.decide(history).decision)
    return history.previous


def show_comparison(place: Place, words: str | None, *, as_json: bool) -> None:
    """Print the comparison; raises `MonitorError` where nothing was read."""
    verdict = place.settings.verdict if place.settings else VerdictSettings()
    candidate = _candidate(place.store, words)
    try:
        found = pairs(place.store.directory, candidate)
    except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
        raise MonitorError(f"what {candidate} read cannot be read ({error})") from error
    if not found:
        raise MonitorError(
            f"{candidate} has read no tilt as a shadow; icewatch bundle shadow {candidate} lets it"
        )
    policy = verdict.policy.build(verdict.skip_above_ice_percent)
    outcome = compare(candidate, found, policy)
    if as_json:
        typer.echo(json.dumps(asdict(outcome), indent=1))
    else:
        _print(outcome, found, verdict)


def _candidate(store: BundleStore, words: str | None) -> str:
    try:
        known = candidates(store.directory)
    except sqlite3.Error as error:
        raise MonitorError(f"what was read cannot be read ({error}); try again") from error
    if words is None:
        shadow = read_choice(store.directory).shadow or next(iter(known), "")
        if not shadow:
            raise MonitorError("nothing has read as a shadow; see icewatch bundle shadow --help")
        return shadow
    if words in known:
        return words
    try:
        return store.find(words)
    except BundleError as error:
        raise MonitorError(str(error).rstrip(".")) from error


def _print(outcome: Comparison, found: Sequence[Pair], verdict: VerdictSettings) -> None:
    spoke = dict.fromkeys(
        f"{one.published.bundle_name}@{one.published.bundle_version}" for one in found
    )
    rows = [
        (f"{outcome.candidate} beside", ", ".join(spoke)),
        ("tilts read by both", f"{outcome.tilts}, {outcome.both_measured} measured by both"),
        ("measured by one alone", _alone_text(outcome)),
        ("mean ice, published", _percent(outcome.mean_published)),
        ("mean ice, shadow", _percent(outcome.mean_shadow)),
        ("mean difference", _points(outcome.mean_difference, "+")),
        ("mean size of it", _points(outcome.mean_absolute_difference)),
        ("largest difference", _points(outcome.largest_difference, "+")),
    ]
    for name, value in rows:
        typer.echo(f"{name:24s} {value}")
    if outcome.largest_at:
        typer.echo(f"{'  at':24s} {plain(outcome.largest_at)}")
    typer.echo(
        f"{'other verdicts':24s} {len(outcome.other_verdicts)} of {outcome.lamellae} lamellae, at "
        f"{verdict.skip_above_ice_percent:g} %"
    )
    for one in outcome.other_verdicts:
        typer.echo(f"  {plain(one.lamella)}: {one.published}, the shadow says {one.shadow}")


def _alone_text(outcome: Comparison) -> str:
    return (
        f"{outcome.only_published_measured} by what was published, {outcome.only_shadow_measured} "
        "by the shadow"
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def _points(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.2f} percentage points"
