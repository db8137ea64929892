"""From simulated tilts to a bundle, on data sets and networks of the smallest size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest
import torch

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.bundle import Bundle
from engines.learning.batches import AugmentSettings, Batch, border, draw_batch, foreign_scale
from engines.learning.calibration import Calibrated
from engines.learning.checkpoint import trained_model
from engines.learning.dataset import DatasetSettings, main, simulate_dataset
from engines.learning.export import BundleIdentity, export_bundle
from engines.learning.losses import LossSettings, total_loss
from engines.learning.measuring import AS_IT_IS, exposures, ports_of
from engines.learning.shards import VALID_BIT, list_shards, read_about, read_scene
from engines.learning.train import Run, TrainSettings, schedule
from engines.networks import CHANNELS, IceModel, NetworkSettings
from engines.preprocess import prepare
from engines.segmenter import Segmenter

TINY = NetworkSettings(
    encoder="tu-resnet10t", widths=(8, 8, 16, 16), pyramid_channels=32, segmentation_channels=32
)
DATASET = DatasetSettings(seed=3, series=2, families=("f10987", "plunge"), tilts=2, size_px=96)
TRAINING = TrainSettings(
    seed=5,
    steps=4,
    batch=2,
    half_precision=False,
    network=TINY,
    augment=AugmentSettings(crops_px=(64,)),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in a fixed order; and small tensors are faster so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "train"
    assert len(list(simulate_dataset(out, DATASET))) == 2
    return out


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    Run([data], out, TRAINING).go()
    return out


def test_a_data_set_is_finished_where_it_was_left(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    first = next(iter(simulate_dataset(out, DATASET)))
    stamp = first.stat().st_mtime_ns
    (out / "series_000001.npz").write_bytes(b"cut")
    done = list(simulate_dataset(out, DATASET))
    assert [p.name for p in done] == ["series_000001.npz"]
    assert first.stat().st_mtime_ns == stamp
    for mine, theirs in zip(list_shards(out), list_shards(data), strict=True):
        for index in range(DATASET.tilts):
            one, other = read_scene(mine, index), read_scene(theirs, index)
            assert np.array_equal(one.expected, other.expected)
            assert np.array_equal(one.packed, other.packed)


def test_a_data_set_grows_but_is_never_mixed(tmp_path: Path) -> None:
    grown = ["--out", str(tmp_path), "--seed", "1", "--size-px", "64", "--tilts", "1"]
    main([*grown, "--series", "1", "--families", "plunge"])
    main([*grown, "--series", "2", "--families", "plunge"])
    assert len(list_shards(tmp_path)) == 2
    about = json.loads((tmp_path / "dataset.json").read_text())
    assert (about["seed"], about["series"], about["families"]) == (1, 2, ["plunge"])
    with pytest.raises(ValueError, match="other settings"):
        main([*grown, "--series", "2", "--families", "generic"])


def test_a_shard_says_what_its_tilts_are(data: Path) -> None:
    path = list_shards(data)[0]
    about = read_about(path)
    assert [a["family"] for a in about] == ["f10987", "f10987"]
    scene = read_scene(path, 0)
    assert scene.percent == pytest.approx(about[0]["ice_percent"], abs=1e-6)
    assert scene.label("0.06").sum() >= scene.label("0.10").sum() >= scene.label("0.15").sum()


def test_each_batch_is_another_and_each_seed_the_same(data: Path) -> None:
    shards, settings = list_shards(data), AugmentSettings(crops_px=(64,))
    generator = np.random.default_rng(1)
    first, second = (draw_batch(shards, 2, generator, settings) for _ in range(2))
    again = draw_batch(shards, 2, np.random.default_rng(1), settings)
    assert torch.equal(first.picture, again.picture)
    assert not torch.equal(first.picture, second.picture)
    assert first.picture.isfinite().all()
    assert ((first.valid == 0) | (first.valid == 1)).all()


def test_foreign_scales_and_borders() -> None:
    picture = np.random.default_rng(0).poisson(200.0, (64, 64)).astype(np.float32)
    for seed in range(8):
        scaled = foreign_scale(picture, np.random.default_rng(seed))
        assert np.isfinite(scaled).all()
        assert np.corrcoef(scaled.ravel(), picture.ravel())[0, 1] > 0.95
        empty = border(picture.shape, np.random.default_rng(seed))
        assert 0 < empty.mean() < 0.6


def batch_with_ice() -> Batch:
    packed = torch.full((2, 64, 64), VALID_BIT, dtype=torch.uint8)
    packed[:, 16:48, 16:48] |= 0b01111  # hexagonal, over all three thresholds
    picture = torch.poisson(torch.full((2, 1, 64, 64), 250.0), torch.Generator().manual_seed(0))
    picture[:, :, 16:48, 16:48] *= 0.6
    distract = torch.zeros((2, 64, 64), dtype=torch.bool)
    contrast = (packed & 1).float() * 0.5
    return Batch(picture, torch.ones_like(picture), packed, distract, contrast)


def test_the_truth_has_the_least_loss() -> None:
    batch, settings = batch_with_ice(), LossSettings()
    ice = (batch.packed & 1).float() * 2 - 1
    right = torch.zeros((2, len(CHANNELS), 64, 64))
    right[:, :3] = 12 * ice[:, None]
    right[:, 3] = 12.0
    right[:, 6:] = -12.0
    right[:, 8] = torch.where(ice > 0, 0.0, -12.0)
    loss, parts = total_loss(right, batch, settings)
    assert float(loss) < 1e-2
    for wrong in (-right, torch.zeros_like(right)):
        other, _ = total_loss(wrong, batch, settings)
        assert float(other) > 10 * float(loss)
    assert set(parts) == {"ice", "phase", "distractor", "not_valid", "contrast"}
    coarse, _ = total_loss(right[:, :, ::4, ::4], batch, settings)
    assert float(coarse) < 1e-2


def test_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    model, batch = IceModel(TINY).train(), batch_with_ice()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        loss, _ = total_loss(model.logits(batch.picture, batch.valid), batch, LossSettings())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_a_run_that_was_stopped_goes_on_the_same(data: Path, run: Path, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    class Stopping(Run):
        def step(self) -> dict[str, float]:
            if self.state.step == 2:
                self.state.save(self.out)
                raise StoppedError
            return super().step()

    with pytest.raises(StoppedError):
        Stopping([data], tmp_path, TRAINING).go()
    Run([data], tmp_path, TRAINING).go()
    whole, _ = trained_model(run)
    resumed, record = trained_model(tmp_path)
    assert record["step"] == TRAINING.steps
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_run_that_goes_on_with_other_settings_notes_both(data: Path, tmp_path: Path) -> None:
    Run([data], tmp_path, TRAINING).go()
    other = replace(TRAINING, seed=7, steps=TRAINING.steps + 1)
    Run([data], tmp_path, other).go()
    _, record = trained_model(tmp_path)
    assert record["settings"]["seed"] == 7
    assert [one["until_step"] for one in record["earlier_settings"]] == [TRAINING.steps]


def test_training_without_data_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no simulated series"):
        Run([tmp_path], tmp_path / "run", TRAINING).go()


def test_the_rate_rises_then_falls() -> None:
    rates = [schedule(p / 100, 0.05) for p in range(101)]
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates.index(max(rates)) == 5
    assert rates[-1] == pytest.approx(0.01)


@pytest.mark.slow  # the exporter takes half a minute for each of the two graphs
@pytest.mark.timeout(600)
def test_a_bundle_is_what_torch_trained(run: Path, data: Path, tmp_path: Path) -> None:
    model, training = trained_model(run)
    calibrated = Calibrated(0.4, AS_IT_IS)
    export_bundle(model, tmp_path, BundleIdentity("tiny", "1.0"), calibrated, training)
    bundle = Bundle.load(tmp_path)
    assert bundle.manifest.channels == CHANNELS
    assert bundle.manifest.training["settings"]["seed"] == TRAINING.seed  # type: ignore[index,call-overload]
    segmenter = Segmenter(bundle, OnnxRuntimeSettings(threads=1).build(bundle))
    scene, picture = next(iter(exposures(data, 0, 1)))
    found = segmenter.read(picture, 13.5)
    prepared = prepare(picture, 13.5, 13.5)
    valid = prepared.valid[None, None].astype(np.float32)
    inputs = ports_of(model).inputs(picture[None, None], valid, None)
    with torch.inference_mode():
        expected = model(*(torch.from_numpy(one) for one in inputs.values()))[0].numpy()
    assert found.probability.shape == scene.expected.shape
    if found.percent is not None:
        assert np.abs(found.probability - expected[0, 1]).max() < 0.02
    half = onnxruntime.InferenceSession(
        tmp_path / "model_fp16.onnx", providers=["CPUExecutionProvider"]
    )
    assert np.abs(half.run(None, inputs)[0] - expected).max() < 0.05
