"""Verdict rules: only evidence skips, and a settled verdict does not flicker."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.lamella import SHARED_SHARE, student_cdf
from monitor.model import Decision, LamellaHistory, Reason
from monitor.policies import MeanOverTiltsSettings
from tests.builders import history, reading, tilt

policy = MeanOverTiltsSettings().build(10.0)


def test_clear_ice_is_flagged_and_clear_glass_is_kept() -> None:
    skip = policy.decide(history([22.0, 25.0, 19.0, 24.0]))
    assert (skip.decision, skip.reason) == (Decision.SKIP, Reason.ICE_ABOVE_LIMIT)
    keep = policy.decide(history([0.4, 0.1, 1.0, 0.3]))
    assert (keep.decision, keep.reason) == (Decision.KEEP, Reason.ICE_BELOW_LIMIT)


def test_few_tilts_decide_nothing_however_icy() -> None:
    verdict = policy.decide(history([90.0, 95.0, 92.0]))
    assert (verdict.decision, verdict.reason) == (Decision.UNDECIDED, Reason.TOO_FEW_TILTS)


def test_one_flash_is_no_evidence() -> None:
    assert policy.decide(history([0.0, 60.0, 0.0, 0.0, 0.0])).decision is not Decision.SKIP


def test_wide_intervals_hold_a_verdict_back() -> None:
    assert policy.decide(history([14.0] * 6, half_width=1.0)).decision is Decision.SKIP
    assert policy.decide(history([14.0] * 6, half_width=12.0)).decision is Decision.UNDECIDED


def test_a_settled_verdict_needs_more_than_doubt_to_fall() -> None:
    doubtful = [16.0, 9.0, 12.0, 14.0]
    assert policy.decide(history(doubtful)).decision is Decision.UNDECIDED
    held = policy.decide(history(doubtful, previous=Decision.SKIP))
    assert held.decision is Decision.SKIP
    assert policy.decide(history([1.0] * 6, previous=Decision.SKIP)).decision is Decision.KEEP


@given(st.lists(st.sampled_from(["null", "out"]), max_size=12))
def test_what_was_not_measured_never_skips(kinds: list[str]) -> None:
    pairs = tuple(
        (
            tilt(float(index)),
            reading(None) if kind == "null" else reading(99.0, in_domain=False),
        )
        for index, kind in enumerate(kinds)
    )
    verdict = policy.decide(LamellaHistory("l", pairs, Decision.UNDECIDED))
    assert verdict.decision is Decision.UNDECIDED
    assert verdict.ice_percent is None
    assert verdict.tilts_seen == len(kinds)


@given(
    st.lists(st.none() | st.floats(0.0, 100.0), min_size=1, max_size=61),
    st.floats(0.0, 30.0),
    st.sampled_from(list(Decision)),
)
def test_a_verdict_is_always_publishable(
    percents: list[float | None], half_width: float, previous: Decision
) -> None:
    verdict = policy.decide(history(percents, half_width, previous))
    if verdict.ice_percent is not None:
        assert verdict.ice_percent_low is not None and verdict.ice_percent_high is not None
        assert 0.0 <= verdict.ice_percent_low <= verdict.ice_percent <= verdict.ice_percent_high
        assert verdict.probability_bad is not None and 0.0 <= verdict.probability_bad <= 1.0
        if verdict.decision is Decision.SKIP:
            assert verdict.ice_percent > 10.0


@given(st.randoms(use_true_random=False), st.lists(st.floats(0, 60), min_size=4, max_size=20))
def test_the_order_of_arrival_does_not_matter(
    shuffler: random.Random, percents: list[float]
) -> None:
    shuffled = percents.copy()
    shuffler.shuffle(shuffled)
    one, other = policy.decide(history(list(percents))), policy.decide(history(list(shuffled)))
    assert one.decision is other.decision
    assert one.probability_bad == pytest.approx(other.probability_bad, abs=1e-3)


@given(st.lists(st.floats(0.0, 60.0), min_size=4, max_size=12), st.floats(0.1, 8.0))
def test_tilts_that_err_together_are_hardly_surer_than_one(
    percents: list[float], half_width: float
) -> None:
    verdict = policy.decide(history(list(percents), half_width))
    low, high = verdict.ice_percent_low, verdict.ice_percent_high
    assert verdict.ice_percent is not None and low is not None and high is not None
    ends = [reading(percent, half_width) for percent in percents]
    mean_reach = sum((one.percent_high or 0.0) - (one.percent or 0.0) for one in ends) / len(ends)
    assert (
        math.sqrt(SHARED_SHARE) * mean_reach - 0.01
        <= high - verdict.ice_percent
        <= mean_reach + 0.01
    )


def test_the_interval_is_that_of_the_tilts_seen() -> None:
    blinking = policy.decide(history([0.0, 30.0, 0.0, 30.0], half_width=0.5))
    assert blinking.ice_percent_high is not None and blinking.ice_percent_low is not None
    assert blinking.ice_percent_high - blinking.ice_percent_low < 1.0
    assert blinking.decision is Decision.UNDECIDED


def test_nothing_is_sure_where_no_tilt_is() -> None:
    assert policy.decide(history([2.0, 3.0, 1.0, 2.5], half_width=4.0)).ice_percent_low == 0.0


@pytest.mark.parametrize(
    ("degrees", "quantile"),  # tables of Student's t, 95 %
    [(1, 6.3138), (2, 2.9200), (3, 2.3534), (4, 2.1318), (10, 1.8125), (40, 1.6839)],
)
def test_student_t_agrees_with_the_tables(degrees: int, quantile: float) -> None:
    assert student_cdf(quantile, degrees) == pytest.approx(0.95, abs=1e-5)
    assert student_cdf(-math.inf, degrees) == pytest.approx(0.0, abs=1e-9)
