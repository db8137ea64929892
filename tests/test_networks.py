"""Scaling, and the network around it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engines.networks import CHANNELS, VARIANTS, IceModel, NetworkSettings, Scaling

TINY = NetworkSettings(widths=(8, 8, 16, 16), pyramid_channels=32, segmentation_channels=32)


@pytest.fixture(scope="module")
def tiny() -> IceModel:
    torch.manual_seed(0)
    return IceModel(TINY).eval()


def electrons(mean: float = 240.0, shape: tuple[int, ...] = (2, 1, 96, 128)) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    picture = torch.poisson(torch.full(shape, mean), generator)
    picture[:, :, 30:60, 40:80] *= 0.7
    return picture


@given(gain=st.floats(1e-4, 1e4))
@settings(max_examples=20, deadline=None)
def test_a_gain_changes_nothing(gain: float) -> None:
    picture = electrons()
    scaling, valid = Scaling(13.5), torch.ones_like(picture)
    before, after = scaling(picture, valid), scaling(picture * gain, valid)
    # a pixel on the very edge of clipping may fall on either side
    assert torch.allclose(before, after, atol=2e-2)


@given(offset=st.floats(-2000.0, 3e4))
@settings(max_examples=20, deadline=None)
def test_an_offset_leaves_the_second_channel(offset: float) -> None:
    picture = electrons()
    scaling, valid = Scaling(13.5), torch.ones_like(picture)
    before, after = scaling(picture, valid), scaling(picture + offset, valid)
    assert torch.allclose(before[:, 1], after[:, 1], atol=0.15)
    assert after.isfinite().all()


def test_the_first_channel_is_contrast_where_values_are_counts() -> None:
    picture = torch.full((1, 1, 512, 512), 200.0)
    picture[:, :, 240:272, 240:272] *= 0.7
    scaled = Scaling(13.5)(picture, torch.ones_like(picture))
    assert scaled[0, 0, 256, 256].item() == pytest.approx(-0.3 / 0.15, rel=0.05)


@pytest.mark.parametrize("value", [0.0, 1e-3, 250.0, 65535.0, -40.0])
@pytest.mark.parametrize("coverage", [0.0, 1.0])
def test_flat_or_empty_pictures_scale_to_zero(value: float, coverage: float) -> None:
    picture = torch.full((1, 1, 96, 96), value)
    scaled = Scaling(13.5)(picture, torch.full_like(picture, coverage))
    assert scaled[:, :2].abs().max() < 0.05
    assert (scaled[:, 2] == coverage).all()


def test_what_is_not_valid_has_no_say() -> None:
    picture = electrons()
    valid = torch.ones_like(picture)
    valid[:, :, :20] = 0.0
    other = picture.clone()
    other[:, :, :20] = 9e4
    scaling = Scaling(13.5)
    assert torch.allclose(scaling(picture, valid), scaling(other, valid), atol=1e-3)
    assert (scaling(other, valid)[:, :, :20] == 0).all()


def test_a_gradient_of_thickness_is_divided_out() -> None:
    slope = torch.linspace(0.5, 1.5, 640)[None, None, None, :].expand(1, 1, 256, 640)
    scaled = Scaling(13.5)(400.0 * slope.contiguous(), torch.ones(1, 1, 256, 640))
    assert scaled[:, 0, :, 200:440].abs().max() < 0.3


def test_outputs_are_probabilities_and_their_areas(tiny: IceModel) -> None:
    picture = electrons()
    valid = torch.ones_like(picture)
    valid[:, :, :, :32] = 0.0
    with torch.inference_mode():
        probability, area, features, left = tiny(picture, valid)
    assert probability.shape == (2, len(CHANNELS), 96, 128)
    assert probability.min() >= 0 and probability.max() <= 1
    assert torch.allclose(probability[:, 3:6].sum(1), torch.ones(2, 96, 128), atol=1e-5)
    assert (probability[:, 0] >= probability[:, 1]).all()
    assert (probability[:, 1] >= probability[:, 2]).all()
    expected = (probability * valid).sum(dim=(2, 3))
    assert torch.allclose(area, expected)
    assert features.shape == (2, sum(tiny.feature_sizes))
    assert left.shape == (2, tiny.settings.memory_channels, 24, 32)


def test_a_picture_is_measured_alike_alone_and_in_a_batch(tiny: IceModel) -> None:
    picture = electrons()
    valid = torch.ones_like(picture)
    with torch.inference_mode():
        together, alone = tiny(picture, valid)[0], tiny(picture[1:], valid[1:])[0]
    assert torch.allclose(together[1:], alone, atol=1e-5)


def test_half_precision_stays_near(tiny: IceModel) -> None:
    import copy

    picture = electrons(mean=6e4)
    valid = torch.ones_like(picture)
    with torch.inference_mode():
        single = tiny(picture, valid)[0]
        half = copy.deepcopy(tiny).halve()(picture, valid)[0]
    assert half.dtype == torch.float32
    assert torch.allclose(single, half, atol=0.02)


def test_without_neighbours_a_tilt_is_read_as_if_there_were_no_memory(tiny: IceModel) -> None:
    picture = electrons()
    valid = torch.ones_like(picture)
    memory = torch.randn(2, tiny.settings.memory_channels, 24, 32)
    nowhere, everywhere = torch.zeros(2, 1, 24, 32), torch.ones(2, 1, 24, 32)
    last = tiny.memory.compare[-1]
    with torch.inference_mode():
        alone = tiny(picture, valid)[0]
        untrained = tiny(picture, valid, memory, everywhere)[0]
        torch.nn.init.normal_(last.weight)  # type: ignore[arg-type]
        without = tiny(picture, valid, memory, nowhere)[0]
        together = tiny(picture, valid, memory, everywhere)[0]
        torch.nn.init.zeros_(last.weight)  # type: ignore[arg-type]
    assert torch.equal(alone, untrained)
    assert torch.equal(alone, without)
    assert not torch.allclose(alone, together, atol=1e-3)


@pytest.mark.parametrize("decoder", ["fpn", "unet"])
def test_batches_of_one_do_not_move_frozen_norms(decoder: Literal["fpn", "unet"]) -> None:
    model = IceModel(replace(TINY, decoder=decoder)).freeze_norms().train()
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    loss = model.logits(electrons()[:1], torch.ones(1, 1, 96, 128)).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    after = model.state_dict()
    assert before
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_variant_measures_a_picture(name: str) -> None:
    model = IceModel(VARIANTS[name]).eval()
    picture = electrons()[:1]
    memory = torch.randn(1, model.settings.memory_channels, 24, 32)
    with torch.inference_mode():
        given = (picture, torch.ones_like(picture), memory, torch.ones(1, 1, 24, 32))
        probability, area, features, left = model(*given)
    assert probability.shape == (1, len(CHANNELS), 96, 128)
    assert features.shape == (1, sum(model.feature_sizes))
    assert left.shape == memory.shape
    assert torch.isfinite(probability).all() and torch.isfinite(area).all()
