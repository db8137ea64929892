"""Late fusion is taught without changing how single tilts are read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engines.alignment import scaled
from engines.learning.batches import AugmentSettings
from engines.learning.checkpoint import trained_model
from engines.learning.dataset import DatasetSettings, simulate_dataset
from engines.learning.screen import CUTS, screen, table
from engines.learning.shards import list_shards
from engines.learning.train import Run, TrainSettings
from engines.learning.train_memory import MemoryRun, MemorySettings, draw_example, main, warped
from engines.networks import VARIANTS, NetworkSettings
from tests.single_thread import one_thread

__all__ = ["one_thread"]

TINY = NetworkSettings(
    encoder="tu-resnet10t", widths=(8, 8, 16, 16), pyramid_channels=32, segmentation_channels=32
)
SIZE_PX = 160
DATASET = DatasetSettings(seed=8, series=6, families=("f11166",), tilts=3, size_px=SIZE_PX)
TRAINING = TrainSettings(
    seed=5,
    steps=3,
    batch=2,
    half_precision=False,
    network=TINY,
    augment=AugmentSettings(crops_px=(64,)),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    assert len(list(simulate_dataset(out, DATASET))) == 6
    return out


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    Run([data], out, TRAINING).go()
    return out


def test_features_are_moved_as_arrays_are() -> None:
    features = torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0))
    matrix = np.array([[1.05, 0.02, 7.0], [-0.01, 0.95, -5.0]])
    moved, there = warped(features, matrix)
    small = scaled(matrix, 4)
    expected = cv2.warpAffine(features.permute(1, 2, 0).numpy(), small, (48, 40))
    inside = cv2.erode(
        cv2.warpAffine(np.ones((40, 48), np.uint8), small, (48, 40)), np.ones((3, 3))
    )
    difference = np.abs(moved.permute(1, 2, 0).numpy() - expected)[inside > 0]
    assert inside.sum() > 1000
    assert difference.max() < 0.05  # OpenCV moves by whole 32nds of a pixel
    assert (there[0].numpy()[inside > 0] == 1).all()


def test_examples_hold_neighbours_that_were_aligned(data: Path) -> None:
    generator = np.random.default_rng(0)
    drawn = [draw_example(list_shards(data), generator, SIZE_PX) for _ in range(12)]
    examples = [one for one in drawn if one is not None]
    assert examples
    for one in examples:
        assert 1 <= len(one.neighbours) <= 3
        assert one.picture.shape == one.scene.packed.shape == one.neighbours[0].picture.shape


def test_only_the_memory_learns(run: Path, data: Path, tmp_path: Path) -> None:
    arguments = ["--run", str(run), "--data", str(data), "--out", str(tmp_path), "--seed", "1"]
    main([*arguments, "--steps", "2", "--crop", str(SIZE_PX)])
    before, after = (trained_model(one)[0].state_dict() for one in (run, tmp_path))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("memory.") for name in changed)
    assert trained_model(tmp_path)[1]["memory"]["seed"] == 1


def test_teaching_lowers_the_loss_below_that_of_single_tilts(run: Path, data: Path) -> None:
    settings = MemorySettings(seed=2, steps=10, batch=2, rate=2e-2, crop_px=SIZE_PX)
    taught = MemoryRun(trained_model(run)[0], [data], settings)
    examples = taught._examples()
    taught._examples = lambda: examples  # type: ignore[method-assign]
    losses = [taught.step(k / 10) for k in range(10)]
    assert losses[0][0] == pytest.approx(losses[0][1], rel=1e-4)
    assert losses[-1][0] < losses[-1][1]


@pytest.mark.slow  # the exporter takes half a minute for each graph
@pytest.mark.timeout(600)
def test_screening_goes_on_where_it_was_left(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VARIANTS, "tiny", TINY)
    screened = screen("tiny", data, data, tmp_path, TRAINING, limit=6)
    assert screened.cpu_ms > 0 and screened.cut in CUTS
    assert 0 <= screened.iou <= 1 and screened.mean_absolute_error >= abs(screened.bias)
    assert "| tiny | 0." in table([screened])
    again = screen("tiny", data, data, tmp_path, TRAINING, limit=6)
    assert (again.iou, again.mean_absolute_error) == (screened.iou, screened.mean_absolute_error)
