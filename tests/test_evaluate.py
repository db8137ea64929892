"""What an evaluation says: figures that can be counted by hand, tables, plots, sheets."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.bundle import Bundle
from engines.icemap import IceMap
from engines.learning.evaluate import Simulated, evaluate_simulated, measure_simulated
from engines.learning.evaluation import EvaluationError, TiltFigures, by_family, summarise
from engines.learning.evaluation_domain import domain_figures
from engines.learning.evaluation_labels import Grain, read_labels
from engines.learning.evaluation_pictures import PictureFigures, crystalline_auroc, ellipse
from engines.learning.evaluation_pixels import recalls, reliability
from engines.learning.evaluation_report import Report
from engines.learning.evaluation_series import Judged, LamellaFigures, summarise_lamellae
from engines.learning.evaluation_sheets import Gallery, Overlay, tile
from engines.learning.evaluation_statistics import auroc, auroc_interval, mean_interval
from engines.learning.evaluation_tables import Table, as_markdown
from engines.learning.plots import plot_curve
from engines.segmenter import Neighbours, Segmenter
from tests import tiny_bundle
from tests.made_shards import made_tilt, write_shard

scores = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=20)


def tilt(
    true: float,
    percent: float | None,
    low: float = 0.0,
    high: float = 100.0,
    pixels: tuple[int, int, int] = (0, 0, 0),
    *,
    series: str = "s",
    family: str = "a",
    kind: str = "",
) -> TiltFigures:
    ends = (None, None) if percent is None else (low, high)
    counts: Any = dict(zip(("true_px", "found_px", "intersection_px"), pixels, strict=True))
    return TiltFigures(family, series, true, 0.0, percent, *ends, **{"kind": kind, **counts})


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    bundle = Bundle.load(tiny_bundle.write(tmp_path_factory.mktemp("bundle")))
    return Segmenter(bundle, OnnxRuntimeSettings(threads=1).build(bundle))


def spread(path: Path) -> float:
    """How much the values of a picture on disk vary."""
    return float(np.std(np.asarray(cv2.imread(str(path)))))


def test_figures_of_a_family() -> None:
    tilts = [
        tilt(10.0, 12.0, 8.0, 15.0, (90, 90, 80)),
        tilt(0.0, 2.0, 1.0, 3.0, (0, 20, 0)),
        tilt(0.0, 0.0, 0.0, 0.5, (0, 0, 0)),
        tilt(5.0, None),
    ]
    figures = summarise("a", tilts)
    assert (figures.tilts, figures.not_measured, figures.ice_free_tilts) == (4, 1, 2)
    assert figures.iou == pytest.approx(80 / 120)
    assert figures.f1 == pytest.approx(160 / 200)
    assert (figures.mean_true, figures.mean_percent) == pytest.approx((10 / 3, 14 / 3))
    assert figures.bias == pytest.approx(4 / 3)
    assert figures.mean_absolute_error == pytest.approx(4 / 3)
    assert figures.coverage == pytest.approx(2 / 3)
    assert figures.mean_width == pytest.approx(9.5 / 3)
    assert (figures.false_percent, figures.false_alarms) == (1.0, 0.5)


def test_figures_of_nothing_are_no_figures() -> None:
    for tilts in ([], [tilt(5.0, None)]):
        figures = summarise("a", tilts)
        assert figures.mean_absolute_error is figures.iou is figures.coverage is None
    assert summarise("a", [tilt(0.0, 1.0)]).iou is None, "no ice anywhere: nothing to overlap"


def test_families_come_in_order_and_together() -> None:
    names = ("h10_resampled", "plunge", "h2_plunged", "test_f10987")
    tilts = [tilt(0.0, float(k), family=name) for k, name in enumerate(names)]
    found = by_family(tilts)
    expected = ["test_f10987", "h2_plunged", "h10_resampled", "plunge", "together"]
    assert [one.family for one in found] == expected
    assert (found[-1].tilts, found[-1].bias) == (4, 1.5)
    assert [one.family for one in by_family(tilts[:1])] == ["h10_resampled"]


@settings(max_examples=60, deadline=None)
@given(scores)
def test_auroc_counts_the_pairs(pairs: Sequence[tuple[int, bool]]) -> None:
    above = [score for score, positive in pairs if positive]
    below = [score for score, positive in pairs if not positive]
    found = auroc(np.array([s for s, _ in pairs], float), np.array([p for _, p in pairs]))
    if not above or not below:
        assert found is None
    else:
        wins = sum((a > b) + 0.5 * (a == b) for a in above for b in below)
        assert found == pytest.approx(wins / len(above) / len(below))


def test_intervals_hold_the_figure_and_shrink() -> None:
    generator = np.random.default_rng(0)
    widths = []
    for count in (30, 300):
        values = generator.normal(3.0, 1.0, count)
        interval = mean_interval(values, [str(k) for k in range(count)])
        assert interval is not None
        assert interval[0] < values.mean() < interval[1]
        widths.append(interval[1] - interval[0])
        assert widths[-1] == pytest.approx(2 * 1.96 / math.sqrt(count), rel=0.35)
    assert widths[1] < widths[0] / 2
    together = mean_interval(values, ["one", "two"] * 150)
    assert together is not None, "two groups are two draws"
    assert mean_interval(values, ["one"] * 300) is None
    score, positive = np.arange(40.0), np.arange(40) > 25
    assert auroc_interval(score, positive) == (1.0, 1.0)
    assert auroc_interval(score, np.arange(40) > 38) is None


def test_figures_of_lamellae() -> None:
    lamellae = [
        LamellaFigures("a", "1", 4, 4, 15.0, 12.0, 8.0, 16.0, "skip", 30.0, 24.0),
        LamellaFigures("a", "2", 4, 4, 12.0, 9.0, 8.0, 11.0, "keep"),
        LamellaFigures("a", "3", 4, 4, 1.0, 10.0, 5.0, 15.0, "skip"),
        LamellaFigures("a", "4", 4, 3, 2.0, 2.0, 0.0, 9.0, "undecided", 5.0, 6.0),
        LamellaFigures("a", "5", 4, 0, 2.0, None),
    ]
    found = summarise_lamellae("a", lamellae)
    assert (found.series, found.not_measured, found.above_limit) == (5, 1, 2)
    assert (found.kept_above, found.skipped_below, found.undecided) == (1, 1, 1)
    assert found.mean_absolute_error == pytest.approx(15 / 4)
    assert found.auroc == pytest.approx(3 / 4)
    assert found.coverage == pytest.approx(1 / 2)
    assert found.occupancy_error == pytest.approx(3.5)


def test_refused_pictures_are_the_strangest() -> None:
    inside = [tilt(0.0, 1.0), tilt(0.0, 2.0)]
    outside = [tilt(0.0, None, kind="atlas"), tilt(0.0, 1.0, kind="atlas")]
    found = {one.kind: one for one in domain_figures(inside, outside)}
    assert (found["atlas"].refused, found["atlas"].auroc) == (0.5, 0.75)
    assert (found["in domain"].refused, found["in domain"].pictures) == (0.0, 2)
    assert found["together"].pictures == 2
    assert domain_figures(inside, []) == []


def test_recall_by_contrast() -> None:
    counts = np.zeros((4, 256, 2), int)
    counts[1, 100:200, 1] = 10  # hexagonal: all found
    counts[2, 100:200, 0] = 10  # cubic: none found
    found = recalls(counts)
    assert {one.recall for one in found if one.phase == "hexagonal" and one.pixels} == {1.0}
    assert {one.recall for one in found if one.phase == "cubic" and one.pixels} == {0.0}
    sizes = [one.pixels for one in found if one.phase == "cubic"]
    assert sum(sizes) == 1000 and max(sizes) - min(sizes) <= 10, "deciles hold equal parts"
    assert recalls(np.zeros((4, 256, 2), int)) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_probabilities_that_are_right_lie_on_the_line(seed: int) -> None:
    generator = np.random.default_rng(seed)
    probability = (np.arange(100) + 0.5) / 100
    pixels = generator.integers(1, 50, 100) * 2000
    ice = np.rint(probability * pixels).astype(int)
    for one in reliability(np.stack([pixels - ice, ice], axis=1)):
        assert one.ice == pytest.approx(one.probability, abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.0, 50.0), max_size=30), st.integers(0, 9))
def test_a_gallery_keeps_the_worst_and_some_at_random(errors: list[float], seed: int) -> None:
    gallery = Gallery(seed, 4)
    blank = np.zeros((4, 4))
    for place, error in enumerate(errors):
        picture = Overlay(f"{place}", blank, blank == 0, blank > 0)
        gallery.offer(error, lambda one=picture: one)  # type: ignore[misc]
    worst = [errors[int(one.title)] for one in gallery.worst]
    assert worst == sorted(errors, reverse=True)[:4]
    drawn = [one.title for one in gallery.random]
    assert len(set(drawn)) == len(drawn) == min(4, len(errors))


def test_a_tile_shows_outlines_where_they_are() -> None:
    picture = np.random.default_rng(0).normal(100.0, 5.0, (60, 80))
    found, truth = np.zeros((2, 60, 80), bool)
    found[5:25, 10:30] = True
    truth[30:50, 40:70] = True
    drawn = tile(Overlay("", picture, np.ones((60, 80), bool), found, truth)).astype(int)
    factor = drawn.shape[0] // 60
    orange = (drawn[..., 0] > 200) & (drawn[..., 2] < 80)
    blue = (drawn[..., 2] > 200) & (drawn[..., 0] < 120)
    for outline, area in ((orange, found), (blue, truth)):
        rows, columns = (axis // factor for axis in np.nonzero(outline))
        inside = np.nonzero(area)
        for at, limits in zip((rows, columns), inside, strict=True):
            assert abs(at.min() - limits.min()) <= 1 and abs(at.max() - limits.max()) <= 1


class Memory:
    """A rule that notes what it is told."""

    def __init__(self) -> None:
        self.angles: list[float | None] = []

    def before(self, angle_deg: float | None) -> Neighbours | None:
        self.angles.append(angle_deg)
        return None

    def add(self, angle_deg: float | None, found: IceMap) -> None:
        assert self.angles[-1] == angle_deg
        assert found.percent is not None

    def judged(self) -> Judged:
        return Judged(7.0, 6.0, 8.0, "keep", 25.0)


def test_simulated_tilts_are_measured_and_compared(segmenter: Segmenter, tmp_path: Path) -> None:
    data, rules = tmp_path / "data", []
    write_shard(data, 0, "test_f10987", made_tilt(10.0, -3.0), made_tilt(4.0, 3.0))
    write_shard(data, 1, "h6_ice_free", made_tilt(0.0, 0.0), made_tilt(0.0, 3.0))
    write_shard(data, 2, "h7_cubic", made_tilt(8.0, 0.0, hidden=True))
    write_shard(data, 3, "foreign_test_atlas", made_tilt(0.0, 0.0, kind="atlas"))

    def begin() -> Memory:
        rules.append(Memory())
        return rules[-1]

    out = tmp_path / "out"
    out.mkdir()
    report = evaluate_simulated(segmenter, Simulated((data,)), out, begin)
    report.write(out)
    told = json.loads((out / "figures.json").read_text())
    families = {one["family"]: one for one in told["families"]}
    assert list(families) == ["test_f10987", "h6_ice_free", "h7_cubic", "together"]
    assert families["test_f10987"]["mean_true"] == pytest.approx(7.0, abs=0.3)
    assert families["test_f10987"]["mean_absolute_error"] < 1.0
    assert families["test_f10987"]["iou"] > 0.8
    ice_free = [one["percent"] for one in told["tilts"] if one["family"] == "h6_ice_free"]
    assert families["h6_ice_free"]["false_percent"] == pytest.approx(np.mean(ice_free))
    assert families["h7_cubic"]["bias"] == pytest.approx(-8.0, abs=0.3)
    assert families["together"]["tilts"] == 5
    assert [one["series"] for one in told["lamellae"]] == [f"data/series_{k:06d}" for k in range(3)]
    assert {one["percent"] for one in told["lamellae"]} == {7.0}
    assert [rule.angles for rule in rules][:2] == [[-3.0, 3.0], [0.0, 3.0]]
    assert told["out_of_domain"][0]["kind"] == "atlas"
    assert told["recall"][-1]["phase"] == "cubic", "as the truth says"
    contamination = next(o for o in told["taken_for_ice"] if o["name"] == "contamination")
    assert 0 < contamination["pixels"] <= 5 * 128 * 64, "at most all of what is marked so"
    assert told["areas"]["the bundle"][1]["true_percent"] == pytest.approx(22 / 5, abs=0.2)
    text = (out / "report.md").read_text()
    assert "| test_f10987 | 1 | 2 |" in text
    for name, _ in report.pictures:
        assert (out / name).stat().st_size > 5000
        assert f"]({name})" in text
        assert spread(out / name) > 10, "something is drawn"
    assert {name for name, _ in report.pictures} >= {"percent.png", "worst.jpg", "domain.png"}


def test_a_limit_and_a_seed_say_what_is_measured(segmenter: Segmenter, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number in range(3):
        write_shard(data, number, "h8_matrix", made_tilt(5.0, 0.0), made_tilt(9.0, 3.0))
    first, again, other = (
        measure_simulated(segmenter, Simulated((data,), seed, limit=3)).tilts for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len(first) == 3
    with pytest.raises(EvaluationError, match="holds no simulated series"):
        measure_simulated(segmenter, Simulated((tmp_path,)))


def test_marks_count_rows_from_the_top_of_what_is_displayed() -> None:
    mask = ellipse(Grain(100.0, 20.0, 12.0, 12.0), (494, 512), (247, 256))
    rows, columns = np.nonzero(mask)
    assert columns.mean() == pytest.approx(50, abs=1)
    assert rows.mean() == pytest.approx((493 - 20) / 2, abs=1)


def test_crystalline_pictures_are_compared_with_labelled_ones() -> None:
    def picture(label: str, percent: float | None) -> PictureFigures:
        return PictureFigures("f", label, percent, None, None, percent, 100.0, ())

    pictures = [picture("crystalline", 4.0), picture("great", 1.0), picture("vitreous", 6.0)]
    unlike = [picture("", 50.0), picture("crystalline", None)]
    assert crystalline_auroc([*pictures, *unlike])[0] == 0.5
    assert crystalline_auroc(unlike)[0] is None


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("file,label\nb.mrc,great\n", "no such picture"),
        ("file,label\na.mrc,crystaline\n", "did you mean 'crystalline'"),
        ("file,label\na.mrc,zzz\n", "choose one of"),
        ("file,label\na.mrc,great\na.mrc,great\n", "named twice"),
        ("picture,what\na.mrc,great\n", "file,label"),
        ("file,label\na.mrc,\n", "line 2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, rows: str, says: str) -> None:
    (tmp_path / "labels.csv").write_text(rows)
    with pytest.raises(EvaluationError, match=says):
        read_labels(tmp_path, {"a.mrc"})


def test_labels_of_both_kinds(tmp_path: Path) -> None:
    marks = {"images": [{"file": "a.mrc", "authors_class": "Vitreous, empty", "strong": []}]}
    (tmp_path / "marks.json").write_text(json.dumps(marks))
    assert read_labels(tmp_path, {"a.mrc"}) == {"a.mrc": "vitreous"}
    (tmp_path / "labels.csv").write_text("\ufefffile,label\na.mrc,Crystalline\n", encoding="utf-8")
    assert read_labels(tmp_path, {"a.mrc"}) == {"a.mrc": "crystalline"}
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "marks.json").write_text('{"images": [{"file": "a.mrc", "strong": [[1]]}]}')
    with pytest.raises(EvaluationError, match="outlines of grains"):
        read_labels(tmp_path, {"a.mrc"})


def test_a_report_holds_no_number_that_is_none(tmp_path: Path) -> None:
    report = Report("simulated", {"name": "n", "version": "1", "backend": "b"}, {"seed": 1})
    report.figures["bad"] = {"nan": math.nan, "list": [math.inf, 1.0, tilt(0.0, 1.0)]}
    report.tables.append(Table("T", ("a|b", "c"), (("x", "1"),), "note"))
    report.write(tmp_path)
    told = json.loads((tmp_path / "figures.json").read_text())
    assert told["bad"]["nan"] is None and told["bad"]["list"][:2] == [None, 1.0]
    assert told["bad"]["list"][2]["percent"] == 1.0
    assert "| a\\|b | c |\n| --- | ---: |\n| x | 1 |" in as_markdown(report.tables[0])


def test_the_curve_of_a_run_is_drawn(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    plot_curve(log, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    rows = [f"{step},{0.5 * step},9,{1 / step},{2 / step}" for step in range(20, 400, 20)]
    log.write_text("\n".join(["step,elapsed_s,series,loss,ice", *rows]))
    plot_curve(log, tmp_path / "curve.png")
    assert spread(tmp_path / "curve.png") > 10
