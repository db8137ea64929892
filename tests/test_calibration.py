"""Fits of the calibration, on tilts whose faults are known and on the smallest network."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engines.bundle import MANIFEST, Bundle
from engines.calibrations import (
    LEAST_REACH,
    AreaCalibration,
    EvidenceCalibration,
    PiecewiseCalibration,
    Reach,
)
from engines.learning import calibrate as command
from engines.learning.calibrate import (
    CalibrationError,
    calibrated_by,
    install,
    main,
    of_bundle,
)
from engines.learning.calibration import Calibrated
from engines.learning.calibration_descent import descend
from engines.learning.calibration_fit import (
    HEADLINE,
    Tilts,
    best_cut,
    expected_error,
    fit_knots,
    fit_platt,
    masked_at,
)
from engines.learning.calibration_intervals import Sides, fit_reach, fit_widening
from engines.learning.calibration_lamellae import Chance, Lamellae, shared_share
from engines.learning.calibration_model import Fitted, fit, read
from engines.learning.calibration_plots import draw
from engines.learning.calibration_records import CHANNELS, CUTS, records, spread
from engines.learning.calibration_report import CalibrationReport, inside
from engines.learning.dataset import DatasetSettings, simulate_dataset
from engines.learning.measuring import recorded_series
from engines.learning.shards import list_shards
from engines.percentage import bin_means
from engines.segmenter import Segmenter
from monitor.model import Decision, IceReading, LamellaHistory
from monitor.policies import MeanOverTiltsSettings
from tests import tiny_bundle
from tests.builders import tilt
from tests.pretend_tilts import pretend_records


@pytest.fixture(scope="module")
def tilts() -> Tilts:
    return Tilts.of(pretend_records(60, seed=1))


@pytest.fixture(scope="module")
def others() -> Tilts:
    return Tilts.of(pretend_records(200, seed=2))


@pytest.fixture(scope="module")
def fitted(tilts: Tilts) -> Fitted:
    return fit(tilts)


def test_probabilities_become_true(tilts: Tilts, others: Tilts) -> None:
    slope, offset = fit_platt(tilts.counts[:, HEADLINE].sum(axis=0))
    assert slope < 1.0, "the pretended network is too sure of itself"
    counts = others.counts[:, HEADLINE].sum(axis=0)
    raw = bin_means().astype(np.float64)
    logit = slope * np.log(raw / (1.0 - raw)) + offset
    after = expected_error(counts, 1.0 / (1.0 + np.exp(-logit)))
    assert after < 0.8 * expected_error(counts, raw)


def test_probabilities_that_are_true_stay_as_they_are() -> None:
    whole = np.random.default_rng(0).integers(1000, 9000, len(bin_means()))
    ice = whole * bin_means()
    counts = np.array([whole - ice, ice]).round().astype(np.int64)
    slope, offset = fit_platt(counts)
    assert slope == pytest.approx(1.0, abs=0.01) and offset == pytest.approx(0.0, abs=0.02)
    assert expected_error(counts, bin_means().astype(np.float64)) < 1e-3


def test_the_cut_overlaps_best_however_much_ice_there_is() -> None:
    """Probabilities that are too sure by a factor in odds are cut where they are even."""
    whole = np.random.default_rng(0).integers(1000, 9000, len(bin_means()))
    raw = bin_means().astype(np.float64)
    true = raw / (raw + 3.0 * (1.0 - raw))
    for more_without in (0, 200_000):
        counts = np.array([whole * (1.0 - true), whole * true]).round().astype(np.int64)
        counts[0, 0] += more_without
        cut = best_cut(counts)
        overlaps = {
            at: 2 * counts[1, raw > at].sum() / (counts[:, raw > at].sum() + counts[1].sum())
            for at in np.linspace(0.05, 0.9, 200)
        }
        assert overlaps[min(overlaps, key=lambda at: abs(at - cut))] > max(overlaps.values()) - 1e-3
    assert best_cut(np.zeros((2, len(raw)), np.int64)) == 0.5


def test_readings_are_better_than_masks(fitted: Fitted, others: Tilts) -> None:
    truth = others.true_percent[:, HEADLINE]
    found = read(others, fitted)
    masks = masked_at(others.masked_percent[:, HEADLINE], 0.5)
    assert np.abs(found.percent - truth).mean() < np.abs(masks - truth).mean()
    assert abs((found.percent - truth).mean()) < 0.25


def test_intervals_cover_on_series_that_the_fit_never_saw(fitted: Fitted, others: Tilts) -> None:
    truth = others.true_percent[:, HEADLINE]
    found = read(others, fitted)
    held = inside(truth, found)
    assert held.mean() > 0.85
    large = found.percent > np.median(found.percent[found.percent > 0.05])
    assert 0.8 < held[large].mean() < 0.98
    width = found.high - found.low
    assert width[found.percent < 0.05].mean() < 0.3 * width[large].mean()


def test_the_reading_is_that_of_the_three_thresholds_alike(fitted: Fitted, others: Tilts) -> None:
    for channel, name in enumerate(CHANNELS):
        area = fitted.calibration.areas[name]
        cut = area.raw_cut(fitted.threshold)
        masks = masked_at(others.masked_percent[:, channel], cut)
        read_as = [area(float(one), float(one)) for one in masks]
        error = np.array(read_as) - others.true_percent[:, channel]
        assert abs(error.mean()) < 0.5


def test_knots_may_lie_on_the_ground_where_nothing_is_found() -> None:
    generator = np.random.default_rng(0)
    truth = np.where(generator.random(400) < 0.5, 0.0, generator.exponential(8.0, 400))
    false = generator.exponential(0.5, 400)
    knots = fit_knots((truth + false)[None], truth)
    assert knots(np.array([[0.0, 0.1]])).max() < 0.1
    found = knots((truth + false)[None])[0]
    assert np.abs(found - truth).mean() < np.abs(false).mean()
    assert (np.diff(np.cumsum(knots.rises)) >= 0.0).all()


def test_reach_is_the_quantile_and_grows_with_what_makes_errors_grow() -> None:
    generator = np.random.default_rng(0)
    terms = np.zeros((3000, 8))
    terms[:, 0], terms[:, 1] = 1.0, generator.uniform(0.0, 10.0, 3000)
    over = terms[:, 1] * generator.exponential(1.0, 3000) - 1.0
    reach = fit_reach(terms, over, np.full(3000, 0.9))
    assert reach.percent == pytest.approx(np.log(10.0), rel=0.12)
    assert reach.base == pytest.approx(-1.0, abs=0.25)
    held = over <= terms @ np.array([reach.base, reach.percent, *[0.0] * 6])
    assert held.mean() == pytest.approx(0.9, abs=0.02)


def test_widening_gives_each_side_what_it_needs() -> None:
    generator = np.random.default_rng(0)
    percent = np.full(2000, 10.0)
    truth = percent + generator.normal(0.0, 1.0, 2000)
    sides = Sides(percent, truth, np.zeros(2000), np.full(2000, 3.0), np.arange(2000))
    (low,), (high,) = fit_widening(sides, (10.0,))
    assert low == pytest.approx(1.645, abs=0.3) and 3.0 + high == pytest.approx(1.645, abs=0.3)
    held = (truth >= percent - low) & (truth <= percent + 3.0 + high)
    assert 0.89 < held.mean() < 0.92


def test_descent_finds_the_nearest_values_that_are_not_negative() -> None:
    wanted = np.array([2.0, -1.0, 0.5])
    found = descend(lambda values: values - wanted, np.ones(3), 0.2)
    np.testing.assert_allclose(found, [2.0, 0.0, 0.5], atol=0.01)


def test_tilts_of_a_series_that_err_alike_share_their_error(fitted: Fitted, others: Tilts) -> None:
    assert shared_share(others, read(others, fitted)) > 0.5
    generator = np.random.default_rng(0)
    found = read(others, fitted)
    shaken = others.true_percent[:, HEADLINE] + generator.normal(0.0, 2.0, len(others))
    alone = type(found)(shaken, shaken - 3.0, shaken + 3.0)
    assert shared_share(others, alone) < 0.15


def test_the_chance_of_a_bad_lamella_is_as_it_is_said(fitted: Fitted, others: Tilts) -> None:
    found = Lamellae.of(others, read(others, fitted))
    chances = found.chances()
    assert sum(one.lamellae for one in chances) == len(found.bad) == 200
    assert sum(one.bad for one in chances) == (found.true_percent > 10.0).sum() > 10
    for one in chances:
        down, up = one.reach
        assert one.low <= one.said <= one.high
        assert one.share - down <= one.said <= one.share + up


@given(percent=st.floats(0.0, 0.05), doubt=st.floats(0.0, 3.0))
def test_what_reads_next_to_nothing_may_be_nothing(percent: float, doubt: float) -> None:
    sure = EvidenceCalibration(
        areas={"ice_0.10": _as_read()},
        low=Reach(base=-1.0),
        high=Reach(base=-1.0, doubtful=1.0),
        widening_at_percent=(0.0,),
        widening_low=(0.0,),
        widening_high=(0.0,),
    )
    terms = dict.fromkeys(Reach.model_fields, 0.0) | {"base": 1.0, "doubtful": doubt}
    low, high = sure.interval(percent, terms)
    assert low == 0.0 and high == pytest.approx(percent + max(LEAST_REACH, doubt - 1.0))


def _as_read() -> AreaCalibration:
    ends = (0.0, 100.0)
    return AreaCalibration(slope=1.0, offset=0.0, mask_share=1.0, mixed_percent=ends, percent=ends)


def test_lamellae_are_those_of_the_daemon(fitted: Fitted, tilts: Tilts) -> None:
    found = read(tilts, fitted)
    lamellae = Lamellae.of(tilts, found)
    rule = MeanOverTiltsSettings().build(10.0)
    for place, series in enumerate(np.unique(tilts.series)[:12]):
        readings = []
        for at in np.flatnonzero(tilts.series == series):
            percent, low, high = (float(line[at]) for line in found.lines)
            readings.append((tilt(3.0 * at), IceReading(percent, low, high, in_domain=True)))
        verdict = rule.decide(LamellaHistory("l", tuple(readings), Decision.UNDECIDED))
        assert verdict.probability_bad == pytest.approx(lamellae.bad[place], abs=1e-4)
        ends = (verdict.ice_percent, verdict.ice_percent_low, verdict.ice_percent_high)
        expected = [line[place] for line in lamellae.read.lines]
        assert ends == pytest.approx(expected, abs=1e-3)


def test_series_stay_together_in_what_is_left_out(tilts: Tilts) -> None:
    folds = tilts.folds()
    assert (np.sum(folds, axis=0) == 1).all()
    for out in folds:
        assert not set(tilts.series[out]) & set(tilts.series[~out])


@given(series=st.integers(1, 40), share=st.floats(0.0, 0.99))
def test_what_is_held_back_has_whole_series_of_each_family(series: int, share: float) -> None:
    whole = _bare_tilts(series)
    fitted_to, checked = whole.halves(share)
    assert len(fitted_to) + len(checked) == len(whole)
    assert not set(fitted_to.series) & set(checked.series)
    for family in ("one", "other"):
        number = len({one.series for one in whole.records if one.family == family})
        held = len({one.series for one in checked.records if one.family == family})
        assert abs(held - share * number) < 1.5


def _bare_tilts(series: int) -> Tilts:
    """Two tilts of each series, of which only the names matter."""
    (one, *_), (other, *_) = pretend_records(1, seed=0), pretend_records(1, seed=1)
    return Tilts.of(
        [
            replace(kind, series=f"{number}", family=("one", "other")[number % 2])
            for number in range(series)
            for kind in (one, other)
        ]
    )


@given(count=st.integers(1, 60).map(lambda families: families * 15), size=st.integers(1, 900))
def test_the_first_series_are_a_fair_sample_of_15_families(count: int, size: int) -> None:
    order = spread(count)
    assert sorted(order) == list(range(count))
    drawn = np.bincount([place % 15 for place in order[:size]], minlength=15)
    assert drawn.max() - drawn.min() <= 1


def test_a_calibration_is_read_as_it_was_written(fitted: Fitted, tmp_path: Path) -> None:
    for calibration in (fitted.calibration, _as_it_is()):
        written = Calibrated(0.4, calibration)
        written.write(tmp_path)
        assert Calibrated.read(tmp_path) == written


def _as_it_is() -> PiecewiseCalibration:
    ends = (0.0, 100.0)
    return PiecewiseCalibration(predicted_percent=ends, percent=ends, low=ends, high=ends)


def test_report_and_pictures(fitted: Fitted, others: Tilts, tmp_path: Path) -> None:
    found = read(others, fitted)
    report = CalibrationReport.of("others", others, found, fitted)
    by_name = {one.name: one for one in report.figures}
    assert by_name["all"].tilts == len(others)
    assert by_name["one"].tilts + by_name["other"].tilts == len(others)
    assert report.lamellae.series == 200
    assert all(one.after < one.before for one in report.reliabilities)
    assert json.loads(json.dumps(report.as_json()))["what"] == "others"
    assert len(report.tables()) == 4
    assert all(path.stat().st_size > 5000 for path in draw(tmp_path, others, found, fitted))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "cal"
    settings = DatasetSettings(3, 4, ("f10987", "plunge"), tilts=1, size_px=96)
    assert len(list(simulate_dataset(out, settings))) == 4
    return out


def test_the_segmenter_reads_what_the_fit_reads(fitted: Fitted, data: Path, tmp_path: Path) -> None:
    work = of_bundle(str(tiny_bundle.write(tmp_path / "bundle")), tmp_path / "out")
    measured = work.measured([data])
    assert len(measured) > 0
    # a cut that was measured, so that nothing lies between two of them
    areas = {
        name: area.model_copy(update={"slope": 1.0, "offset": 0.0})
        for name, area in fitted.calibration.areas.items()
    }
    calibration = fitted.calibration.model_copy(update={"areas": areas})
    same = Fitted(CUTS[6], calibration)
    install(same, work.bundle, work.about([data], measured))
    bundle = Bundle.load(work.bundle.directory)
    assert bundle.manifest.calibration == calibration
    segmenter = Segmenter(bundle, work.backend)
    expected = read(measured, same)
    place = {(one.series, one.index): at for at, one in enumerate(measured.records)}
    for number, path in enumerate(list_shards(data)):
        for one in recorded_series(path, number, work.seed):
            found = segmenter.read(one.picture, float(one.scene.about["pixel_size_angstrom"]))
            if found.percent is not None:
                at = place[path.stem, one.index]
                assert found.percent == pytest.approx(expected.percent[at], abs=1e-6)
                assert found.percent_low == pytest.approx(expected.low[at], abs=1e-6)
                assert found.percent_high == pytest.approx(expected.high[at], abs=1e-6)


def test_what_was_measured_is_not_measured_again(data: Path, tmp_path: Path) -> None:
    work = of_bundle(str(tiny_bundle.write(tmp_path / "bundle")), tmp_path / "out")
    first = list(records(work.bundle, work.backend, data, tmp_path / "kept", 0, 2))
    work.backend.close()
    again = list(records(work.bundle, work.backend, data, tmp_path / "kept", 0, 2))
    assert len(again) == 2 and any(again)
    for one, other in zip(chain(*first), chain(*again), strict=True):
        np.testing.assert_array_equal(one.counts, other.counts)
        assert one.circumstances == other.circumstances


def test_the_command_fits_installs_and_shows(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "FEWEST_SERIES", 3)
    before = torch.get_num_threads()
    bundle, out = tiny_bundle.write(tmp_path / "bundle"), tmp_path / "out"
    asked = ["--bundle", str(bundle), "--data", str(data), "--check", str(data)]
    main([*asked, "--out", str(out), "--install", "--check-share", "0.25"])
    torch.set_num_threads(before)
    written = Bundle.load(bundle).manifest
    assert isinstance(written.calibration, EvidenceCalibration)
    assert Calibrated.read(out) == Calibrated(written.threshold, written.calibration)
    about = written.training["calibrated_on"]
    assert isinstance(about, dict) and about["series"] == 3
    assert "MAE" in (out / command.TABLES).read_text()
    assert "MAE" in capsys.readouterr().out
    for folder in (out, out / command.HELD_BACK, out / "cal"):
        assert (folder / "coverage.png").exists() and (folder / "lamellae.png").exists()
    assert not (bundle / MANIFEST).with_suffix(".partial").exists()


@pytest.mark.parametrize("series", [0, 3])
def test_too_little_is_refused_in_one_sentence(series: int) -> None:
    with pytest.raises(CalibrationError, match="simulate more"):
        calibrated_by(Tilts.of(pretend_records(series, seed=0)))


def test_a_folder_without_series_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tiny_bundle.write(tmp_path / "bundle")
    empty = tmp_path / "empty"
    empty.mkdir()
    asked = ["--bundle", str(bundle), "--data", str(empty), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="holds no simulated series"):
        main(asked)
    with pytest.raises(SystemExit, match="needs --out"):
        main(asked[:-2])
    with pytest.raises(SystemExit, match="from 0 to less than 1"):
        main([*asked, "--check-share", "1"])
    with pytest.raises(SystemExit, match="is for a bundle"):
        main(["--run", str(empty), "--data", str(empty), "--install"])
    assert not capsys.readouterr().out


@given(st.integers(1, 500), st.data())
def test_the_interval_of_a_share_lies_around_it(lamellae: int, data: st.DataObject) -> None:
    one = Chance(0.0, 1.0, lamellae, 0.5, data.draw(st.integers(0, lamellae)))
    down, up = one.reach
    assert 0.0 <= down <= one.share + 1e-12
    assert 0.0 <= up <= 1.0 - one.share + 1e-12
    assert down + up > 0.0
