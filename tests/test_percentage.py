"""From what the maps of a tilt say to its percentage: bounds, order, and what widens it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import float32, int64
from pydantic import ValidationError

from engines.bundle import Bundle
from engines.calibrations import (
    NEXT_TO_ZERO,
    AreaCalibration,
    EvidenceCalibration,
    PiecewiseCalibration,
    Reach,
)
from engines.errors import BundleError
from engines.percentage import (
    BINS,
    Area,
    Circumstances,
    Evidence,
    area_curve,
    area_of,
    bin_means,
    histogram,
    percentage,
    relative_noise,
)
from tests import tiny_bundle

NAMES = ("ice_0.06", "ice_0.10", "ice_0.15")
PERCENT = st.floats(0.0, 100.0)
AREA = AreaCalibration(
    slope=0.7,
    offset=-0.5,
    mask_share=0.5,
    mixed_percent=(0.0, 1.0, 10.0, 100.0),
    percent=(0.0, 0.0, 12.0, 100.0),
)
CALIBRATION = EvidenceCalibration(
    areas=dict.fromkeys(NAMES, AREA),
    low=Reach(base=0.1, percent=0.3),
    high=Reach(base=-0.5, percent=0.2, root=0.3, doubtful=1.0, distractor=0.1, spread=0.1),
    widening_at_percent=(0.0, 5.0),
    widening_low=(0.0, 0.2),
    widening_high=(0.1, -0.2),
)
PIECEWISE = PiecewiseCalibration(
    predicted_percent=(0.0, 10.0), percent=(0.0, 20.0), low=(0.0, 10.0), high=(0.5, 40.0)
)
CIRCUMSTANCES = Circumstances(1.0, 4.0, 90.0, 13.5, 0.06)
areas = st.builds(Area, PERCENT, PERCENT, st.floats(0.0, 25.0))
evidences = st.builds(
    Evidence,
    st.just("ice_0.10"),
    st.tuples(areas, areas, areas).map(lambda three: dict(zip(NAMES, three, strict=True))),
    st.just(CIRCUMSTANCES),
    st.floats(1.0, 5.0),
)


@given(evidences, st.sampled_from([CALIBRATION, PIECEWISE]))
def test_a_percentage_lies_within_its_interval_and_that_within_bounds(
    evidence: Evidence, calibration: EvidenceCalibration | PiecewiseCalibration
) -> None:
    percent, low, high = percentage(evidence, calibration)
    assert 0.0 <= low <= percent <= high <= 100.0


@given(evidences, st.sampled_from([CALIBRATION, PIECEWISE]), st.floats(1.0, 5.0))
def test_the_unfamiliar_widens_the_interval_and_leaves_the_percentage(
    evidence: Evidence, calibration: EvidenceCalibration | PiecewiseCalibration, more: float
) -> None:
    percent, low, high = percentage(evidence, calibration)
    wider = replace(evidence, widening_factor=evidence.widening_factor * more)
    assert percentage(wider, calibration)[0] == percent
    assert percentage(wider, calibration)[1] <= low + 1e-9
    assert percentage(wider, calibration)[2] >= high - 1e-9


@given(evidences, st.floats(0.0, 25.0))
def test_more_doubt_never_narrows(evidence: Evidence, more: float) -> None:
    area = evidence.areas["ice_0.10"]
    doubted = replace(area, doubtful_percent=area.doubtful_percent + more)
    other = replace(evidence, areas={**evidence.areas, "ice_0.10": doubted})
    assert percentage(other, CALIBRATION)[2] >= percentage(evidence, CALIBRATION)[2]


@given(evidences)
def test_area_falls_with_the_threshold_and_agrees_with_the_percentage(evidence: Evidence) -> None:
    curve = area_curve(evidence, CALIBRATION)
    assert list(curve) == sorted(NAMES)
    assert curve["ice_0.06"] >= curve["ice_0.10"] >= curve["ice_0.15"]
    assert curve["ice_0.10"] == percentage(evidence, CALIBRATION)[0]


def test_an_end_next_to_nothing_is_nothing() -> None:
    evidence = Evidence("ice_0.10", dict.fromkeys(NAMES, Area(10.0, 10.0, 0.0)), CIRCUMSTANCES)
    for share in (0.9 * NEXT_TO_ZERO, 1.1 * NEXT_TO_ZERO):
        near = {"low": Reach(percent=1.0 - share), "widening_low": (0.0, 0.0)}
        percent, low, _ = percentage(evidence, CALIBRATION.model_copy(update=near))
        assert low == pytest.approx(share * percent if share > NEXT_TO_ZERO else 0.0)
    assert percentage(evidence, CALIBRATION)[1] > 5.0


@given(st.floats(0.05, 5.0), st.floats(-4.0, 4.0), st.floats(0.02, 0.98))
def test_the_cut_before_calibration_is_the_cut_after_it(
    slope: float, offset: float, threshold: float
) -> None:
    area = AREA.model_copy(update={"slope": slope, "offset": offset})
    raw = area.raw_cut(threshold)
    if 1e-5 < raw < 1.0 - 1e-5:
        assert float(area.probability(np.array(raw, float32))) == pytest.approx(threshold, abs=1e-3)


@given(st.lists(st.floats(0.0, 1.0, width=32), min_size=2, max_size=60))
def test_calibrated_probabilities_keep_their_order_and_stay_probabilities(raw: list[float]) -> None:
    found = AREA.probability(np.sort(np.array(raw, float32)))
    assert np.isfinite(found).all() and (found >= 0.0).all() and (found <= 1.0).all()
    assert (np.diff(found) >= -1e-6).all()


def test_a_histogram_keeps_the_sum_of_the_probabilities() -> None:
    generator = np.random.default_rng(1)
    probability = (generator.random((200, 300)) ** 6).astype(float32)
    inside = generator.random((200, 300)) < 0.8
    counts = histogram(probability, inside)
    assert counts.shape == (BINS,) and counts.sum() == inside.sum()
    area = area_of(3.0, counts, None)
    assert area.masked_percent == 3.0
    assert area.expected_percent == pytest.approx(100.0 * probability[inside].mean(), rel=1e-3)
    doubt = probability * (1.0 - probability)
    assert area.doubtful_percent == pytest.approx(100.0 * doubt[inside].mean(), rel=1e-3)
    assert area_of(0.0, np.zeros(BINS, int64), AREA).expected_percent == 0.0
    assert (np.diff(bin_means()) > 0.0).all()


@given(st.floats(0.005, 0.3), st.floats(0.1, 5000.0))
def test_noise_is_told_whatever_the_scale(noise: float, mean: float) -> None:
    generator = np.random.default_rng(3)
    slope = np.linspace(0.8, 1.2, 160)[:, None] * np.linspace(0.9, 1.1, 160)
    picture = (mean * (slope + generator.normal(0.0, noise, (160, 160)))).astype(float32)
    assert relative_noise(picture, np.ones(picture.shape, bool)) == pytest.approx(noise, rel=0.1)
    assert relative_noise(picture, np.zeros(picture.shape, bool)) == 0.0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"widening_high": (0.1,)}, "one value for each widening_at_percent"),
        ({"widening_at_percent": (5.0, 5.0)}, "must rise"),
        ({"areas": {}}, "areas"),
        ({"low": {"percent": -0.1}}, "low.percent"),
        ({"low": {"base": float("nan")}}, "low.base"),
        ({"high": {"slope": 1.0}}, "high.slope"),
    ],
)
def test_a_calibration_that_makes_no_sense_is_refused(
    change: dict[str, object], complaint: str
) -> None:
    content = {**CALIBRATION.model_dump(), **change}
    with pytest.raises(ValidationError) as refusal:
        EvidenceCalibration.model_validate(content)
    first = refusal.value.errors()[0]
    assert complaint in f"{'.'.join(str(one) for one in first['loc'])}: {first['msg']}"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"percent": (0.0, 5.0, 4.0, 100.0)}, "must not fall"),
        ({"percent": (0.0, 5.0)}, "one value for each mixed_percent"),
        ({"mixed_percent": (0.0, 1.0, 1.0, 100.0)}, "must rise"),
        ({"slope": 0.0}, "greater than 0"),
        ({"mask_share": 1.1}, "less than or equal to 1"),
        ({"offset": float("inf")}, "finite"),
    ],
)
def test_an_area_that_makes_no_sense_is_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        AreaCalibration.model_validate({**AREA.model_dump(), **change})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"areas": {"ice_0.06": AREA.model_dump()}}, "must name the ice_channel"),
        ({"areas": {**dict.fromkeys(("ice_0.10", "fog"), AREA.model_dump())}}, "'fog'"),
        ({"low": {"percent": -1}}, "calibration.low.percent: "),
        ({"kind": "spline"}, "calibration.kind"),
        ({"widening_high": [1e9, 0]}, "calibration.widening_high"),
    ],
)
def test_a_bundle_with_a_foreign_calibration_is_refused_in_one_sentence(
    tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    content = {**CALIBRATION.model_dump(), **change}
    path = tiny_bundle.write(tmp_path, calibration=content)
    with pytest.raises(BundleError) as refusal:
        Bundle.load(path)
    text = str(refusal.value)
    assert complaint in text and text.count("\n") == 0 and text.endswith("export it again.")


def test_the_kind_of_a_calibration_is_read_from_the_manifest(tmp_path: Path) -> None:
    path = tiny_bundle.write(tmp_path, calibration=CALIBRATION.model_dump())
    assert Bundle.load(path).manifest.calibration == CALIBRATION
    assert Bundle.load("default").manifest.calibration is not None
