"""The numbers of the running session against a plain count, whatever comes in which order."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from monitor.messages import LamellaMessage, encodable
from monitor.model import Decision, Reason
from monitor.sinks.session_metrics import MAX_GRIDS, OTHER, SessionMetrics
from tests.alerting_programs import promtool

NAMES = st.text(min_size=1, max_size=20).map(encodable)
NASTY = 'a"b\\c\nd\te\x1b[31m<b>ü‮{x="y"} 1 # \udcff'


def message(session: str, grid: str, lamella: str, verdict: Decision) -> LamellaMessage:
    return LamellaMessage(
        seq=1,
        boot_id="b",
        time="2026-01-01T00:00:00.000Z",
        microscope="m",
        session=session,
        grid=grid,
        lamella=lamella,
        series=lamella,
        verdict=verdict,
        reason=Reason.NOT_SURE_YET,
        explanation="x",
        ice_percent=12.5,
        ice_percent_low=None,
        ice_percent_high=None,
        probability_bad=None,
        tilts_seen=3,
        tilts_expected=None,
    )


def shown(registry: CollectorRegistry, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Samples as whoever scrapes reads them."""
    text = generate_latest(registry).decode()
    return {
        tuple(one.labels[label] for label in labels): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == name
    }


STEPS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 8), st.sampled_from(Decision)), max_size=120
)


@settings(max_examples=30, deadline=None)
@given(steps=STEPS)
def test_grids_count_the_verdict_that_each_lamella_has(
    steps: list[tuple[int, int, Decision]],
) -> None:
    registry = CollectorRegistry()
    metrics = SessionMetrics("m", registry, lambda session: {}, "s")
    newest: dict[tuple[str, str], Decision] = {}
    for grid, number, verdict in steps:
        lamella = f"s/g{grid}/L{number}"
        metrics.lamella(message("s", f"g{grid}", lamella, verdict))
        metrics.lamella(message("another", f"g{grid}", lamella, Decision.SKIP))
        newest[f"g{grid}", lamella] = verdict
    known = list(dict.fromkeys(grid for grid, _ in newest))[:MAX_GRIDS]
    expected = Counter(
        (grid if grid in known else OTHER, verdict.value) for (grid, _), verdict in newest.items()
    )
    found = shown(registry, "icewatch_grid_lamellae", "grid", "verdict")
    assert {key: count for key, count in found.items() if count} == dict(expected)
    assert len({grid for grid, _ in found}) <= MAX_GRIDS + 1


@settings(max_examples=100, deadline=None)
@given(session=NAMES, grid=NAMES, lamella=NAMES)
def test_names_come_out_as_they_went_in(session: str, grid: str, lamella: str) -> None:
    registry = CollectorRegistry()
    metrics = SessionMetrics("m", registry, lambda session: {}, session)
    metrics.lamella(message(session, grid, lamella, Decision.SKIP))
    assert shown(registry, "icewatch_lamella_ice_ratio", "lamella") == {(lamella,): 0.125}
    (found,) = {key[:2] for key in shown(registry, "icewatch_grid_lamellae", "session", "grid")}
    assert found == (session, grid)


def test_promtool_reads_nasty_names() -> None:
    registry = CollectorRegistry()
    name = encodable(NASTY)
    metrics = SessionMetrics("m", registry, lambda session: {}, name)
    metrics.lamella(message(name, name, name, Decision.SKIP))
    done = promtool("check", "metrics", given=generate_latest(registry).decode())
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
