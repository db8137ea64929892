"""`python -m engines.learning.domain`: from data sets on disk to a bundle that refuses pictures."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.bundle import Bundle
from engines.domain_physics import PHYSICS
from engines.domain_widening import FACTORS
from engines.icemap import Flag, IceMap, Level
from engines.learning.domain import add_to_bundle, main
from engines.learning.domain_data import Sample
from engines.learning.domain_fit import fit_monitor
from engines.learning.shards import write_series
from engines.segmenter import Segmenter
from engines.simulation.foreign import foreign_picture, simulate_foreign, without_truth
from engines.simulation.tilt import SimulatedSeries
from tests import tiny_bundle

SIDE = 128


def specimen(seed: int) -> np.ndarray:
    """Paint what a lamella looks like from afar: rough at every scale, dark dirt, no edges."""
    rng = np.random.default_rng([seed, 5])
    rough = sum(
        size**0.7 * cv2.GaussianBlur(rng.normal(0, 1, (SIDE, SIDE)), (0, 0), size) * size
        for size in (1.5, 3.0, 6.0, 12.0)
    )
    dirt = cv2.GaussianBlur((rng.random((SIDE, SIDE)) > 0.999).astype(float), (0, 0), 3.0)
    field = 1.0 + 0.04 * rough / np.std(rough) - 6.0 * dirt
    return np.asarray(np.maximum(rng.uniform(60, 300) * field, 1.0), np.float32)


def write_inside(folder: Path, count: int) -> None:
    folder.mkdir()
    blank = foreign_picture(0, "atlas", size_px=SIDE)
    for seed in range(count):
        about = {**blank.metadata, "kind": "specimen", "electrons_per_px": 100.0}
        tilt = without_truth(replace(blank, expected=specimen(seed), metadata=about))
        name = f"generic{seed % 3}"
        series = SimulatedSeries(seed, name, (tilt,), 13.5, 0.0, 0.0)
        write_series(folder / f"series_{seed:06d}.npz", series, seed, name)


def write_foreign(folder: Path, count: int) -> None:
    folder.mkdir()
    for seed in range(count):
        family = ("foreign_atlas", "foreign_diffraction")[seed % 2]
        series = simulate_foreign(seed, family, SIDE)
        write_series(folder / f"series_{seed:06d}.npz", series, seed, family)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    folder = tmp_path_factory.mktemp("domain")
    write_inside(folder / "inside", 48)
    write_foreign(folder / "foreign", 32)
    bundle = tiny_bundle.write(folder / "bundle")
    main(
        [
            *("--bundle", str(bundle)),
            *("--in-domain", str(folder / "inside")),
            *("--foreign", str(folder / "foreign")),
        ]
    )
    loaded = Bundle.load(bundle)
    return Segmenter(loaded, OnnxRuntimeSettings(threads=1).build(loaded))


def read(segmenter: Segmenter, expected: np.ndarray, seed: int) -> IceMap:
    return segmenter.read(np.random.default_rng(seed).poisson(expected).astype(np.int32), 13.5)


def test_a_specimen_is_measured_and_a_foreign_picture_is_not(segmenter: Segmenter) -> None:
    inside = [read(segmenter, specimen(1000 + k), k) for k in range(30)]
    assert sum(one.percent is None for one in inside) <= 1
    green = [one for one in inside if one.domain_level is Level.GREEN]
    assert len(green) >= 24 and all(not one.flags and one.in_domain for one in green)
    kinds = ("atlas", "diffraction")
    pictures = [foreign_picture(900 + k, kinds[k % 2], size_px=SIDE).expected for k in range(20)]
    outside = [read(segmenter, one, k) for k, one in enumerate(pictures)]
    refused = [one for one in outside if one.percent is None]
    assert len(refused) >= 12
    for one in refused:
        assert one.domain_level is Level.RED and not one.in_domain and one.flags
    assert any(Flag.OUT_OF_DOMAIN in one.flags for one in refused)


def test_an_unfamiliar_picture_has_a_wider_interval(segmenter: Segmenter, tmp_path: Path) -> None:
    """The same picture, read by a bundle to which next to everything is unfamiliar."""
    rows = np.random.default_rng(0).normal(0.0, 1.0, (60, len(PHYSICS))).astype(np.float32)
    names = np.array([f"generic{k % 3}" for k in range(60)])
    no = np.zeros(60, bool)
    sample = Sample(names, names, names, no, no, np.empty((60, 0), np.float32), rows)
    monitor = replace(fit_monitor(sample, ()), amber=1e-9, unfamiliar_limit=1e6)
    add_to_bundle(tiny_bundle.write(tmp_path), monitor)
    bundle = Bundle.load(tmp_path)
    strict = Segmenter(bundle, OnnxRuntimeSettings(threads=1).build(bundle))
    plain, amber = (read(one, specimen(3000), 3) for one in (segmenter, strict))
    assert plain.domain_level is Level.GREEN and plain.flags == ()
    assert amber.domain_level is Level.AMBER and amber.flags == (Flag.UNFAMILIAR,)
    assert amber.in_domain and amber.percent == plain.percent is not None
    assert plain.percent_high is not None and amber.percent_high is not None
    wider = (amber.percent_high - plain.percent) / (plain.percent_high - plain.percent)
    assert wider == pytest.approx(FACTORS[Flag.UNFAMILIAR])


def test_negated_counts_are_turned_back(segmenter: Segmenter) -> None:
    counts = np.random.default_rng(3).poisson(specimen(3000)).astype(np.int32)
    plain, negated = (segmenter.read(one, 13.5) for one in (counts, -counts))
    assert negated.flags == (Flag.INVERTED, *plain.flags)
    assert negated.percent == plain.percent
    assert negated.percent_high is not None and plain.percent_high is not None
    assert negated.percent_high > plain.percent_high


def test_what_the_source_lacks_widens_the_interval(segmenter: Segmenter) -> None:
    counts = np.random.default_rng(3).poisson(specimen(3000)).astype(np.int32)
    plain = segmenter.read(counts, 13.5)
    less = segmenter.read(counts, 13.5, None, (Flag.DOSE_UNKNOWN, Flag.ANGLE_UNKNOWN))
    assert less.flags == (*plain.flags, Flag.DOSE_UNKNOWN, Flag.ANGLE_UNKNOWN)
    assert plain.percent_high is not None and less.percent_high is not None
    assert less.percent == plain.percent and less.percent_high > plain.percent_high
