"""`engines.domain`: what keeps a picture from being measured."""

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.domain import domain_flags
from engines.icemap import Flag
from engines.preprocess import Prepared, prepare

RATIOS = (1.0, 1.37, 1.5, 2.0, 3.3, 6.852)


def flags_of(image: NDArray[Any], ratio: float) -> tuple[Flag, ...]:
    prepared: Prepared = prepare(image, 13.5 / ratio, 13.5)
    return domain_flags(prepared.picture, prepared.valid, (image.shape[0], image.shape[1]))


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("counts", [0.5, 10.0])
def test_electrons_without_specimen_show_no_structure(ratio: float, counts: float) -> None:
    side = round(320 * ratio)
    found = [
        flags_of(np.random.default_rng(seed).poisson(counts * 4, (side, side + 7)), ratio)
        for seed in range(5)
    ]
    assert found.count((Flag.NO_STRUCTURE,)) >= 4


@pytest.mark.parametrize("ratio", RATIOS)
def test_faint_structure_is_seen_at_any_sampling(ratio: float) -> None:
    rng = np.random.default_rng(0)
    rough = cv2.GaussianBlur(rng.normal(0, 1, (320, 320)), (0, 0), 3)
    rough = cv2.resize(rough / rough.std(), None, fx=ratio, fy=ratio)
    dose = 400.0 / ratio**2
    assert flags_of(rng.poisson(dose * (1 + 0.02 * rough)), ratio) == ()


def test_camera_that_blurs_its_noise_is_not_called_empty() -> None:
    noise = np.random.default_rng(0).normal(100, 10, (601, 600))
    blurred = (noise[1:, 1:] + noise[:-1, 1:] + noise[1:, :-1] + noise[:-1, :-1]) / 4
    assert flags_of(blurred.astype(np.float32), 1.0) == ()


def test_interpolated_pictures_are_not_called_empty() -> None:
    assert flags_of(np.random.default_rng(0).poisson(30.0, (200, 200)), 0.7) == ()


@pytest.mark.parametrize("side", [1, 2, 5, 40, 100])
def test_small_pictures_are_not_judged(side: int) -> None:
    image = np.random.default_rng(0).poisson(30.0, (side, side)).astype(float)
    assert Flag.NO_STRUCTURE not in flags_of(image, 1.0)


def test_nothing_valid_is_not_judged() -> None:
    nothing = np.zeros((100, 100), bool)
    assert domain_flags(np.ones((100, 100), np.float32), nothing, (100, 100)) == ()


def test_parts_that_are_not_valid_are_not_looked_at() -> None:
    image = np.random.default_rng(0).poisson(30.0, (600, 600)).astype(np.float32)
    valid = np.ones(image.shape, bool)
    valid[:, :200] = False
    image[:, :190] *= 3 + np.sin(np.arange(190) / 9)
    assert domain_flags(image, valid, (600, 600)) == (Flag.NO_STRUCTURE,)
    valid[:, :200] = True
    assert domain_flags(image, valid, (600, 600)) == ()
