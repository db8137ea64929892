"""The out-of-domain monitor: what is fitted, written into a bundle, and refused."""

import contextlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.bundle import Bundle
from engines.domain_file import DOMAIN, monitor_of, packed, unpacked
from engines.domain_monitor import RED, DomainMonitor
from engines.domain_physics import PHYSICS, physics_of
from engines.errors import BundleError
from engines.icemap import Level
from engines.learning.domain import add_to_bundle
from engines.learning.domain_data import Sample
from engines.learning.domain_fit import Shares, fit_monitor
from tests import tiny_bundle

SIZES = (6, 10)
FAMILIES = ("a", "b", "c")


def drawn(rng: np.random.Generator, count: int, shift: float = 0.0) -> NDArray[Any]:
    """Draw features of which a few directions hold most of the variance; the last ones none."""
    hidden = rng.normal(0.0, 1.0, (count, 4)) + shift
    mixing = np.random.default_rng(1).normal(0.0, 1.0, (4, sum(SIZES)))
    return np.asarray(hidden @ mixing + 0.1 * rng.normal(0.0, 1.0, (count, sum(SIZES))))


def physical(rng: np.random.Generator, count: int) -> NDArray[Any]:
    """Draw what physics tell of pictures whose finest detail is noise."""
    physics = rng.normal(0.0, 1.0, (count, len(PHYSICS)))
    physics[:, PHYSICS.index("slope_2")] *= 0.1
    return physics


def sample(seed: int = 0, count: int = 240) -> Sample:
    """Draw pictures of three families, some turned, and foreign ones along one direction."""
    rng = np.random.default_rng(seed)
    inverted = np.arange(count) % 3 == 0
    foreign = np.arange(count) >= count * 3 // 4
    family = np.where(foreign, "foreign_x", np.array(FAMILIES)[np.arange(count) // 3 % 3])
    physics = physical(rng, count)
    physics[inverted & ~foreign, 3] += 9.0
    features = drawn(rng, count)
    features[foreign, 0] += 9.0
    return Sample(
        family,
        np.array([f"{k // 2}" for k in range(count)]),
        np.full(count, "float"),
        inverted & ~foreign,
        np.zeros(count, bool),
        features.astype(np.float32),
        physics.astype(np.float32),
    )


@pytest.fixture(scope="module")
def monitor() -> DomainMonitor:
    return fit_monitor(sample(), SIZES)


def judged(monitor: DomainMonitor, features: NDArray[Any], physics: NDArray[Any]) -> list[Level]:
    pairs = zip(features.astype(np.float32), physics.astype(np.float32), strict=True)
    return [monitor.judge(*pair).level for pair in pairs]


def test_what_is_like_the_data_is_green(monitor: DomainMonitor) -> None:
    rng = np.random.default_rng(7)
    levels = judged(monitor, drawn(rng, 400), physical(rng, 400))
    assert levels.count(Level.RED) <= 8 and levels.count(Level.AMBER) <= 60


def test_known_foreign_pictures_are_red(monitor: DomainMonitor) -> None:
    rng = np.random.default_rng(8)
    features = drawn(rng, 100)
    features[:, 0] += 9.0
    levels = judged(monitor, features, physical(rng, 100))
    assert levels.count(Level.RED) >= 95


def test_what_nobody_thought_of_is_red_by_its_distance(monitor: DomainMonitor) -> None:
    rng = np.random.default_rng(9)
    for at in range(1, sum(SIZES)):
        features = drawn(rng, 20)
        features[:, at] -= 40.0
        levels = judged(monitor, features, physical(rng, 20))
        assert levels.count(Level.RED) >= 18, at


def test_turned_pictures_are_told(monitor: DomainMonitor) -> None:
    fresh = sample(5)
    _, inverted = monitor.scores(fresh.features, fresh.physics)
    inside = fresh.family != "foreign_x"
    assert np.mean(inverted[fresh.inverted] > 1.0) >= 0.9
    assert np.mean(inverted[inside & ~fresh.inverted] > 1.0) <= 0.02


def test_where_structure_hides_the_noise_nothing_is_called_turned(monitor: DomainMonitor) -> None:
    rows = sample(5)
    physics = rows.physics.copy()
    physics[:, PHYSICS.index("slope_2")] = 2.0
    _, inverted = monitor.scores(rows.features, physics)
    assert not inverted.any()


def test_a_single_judgement_is_that_of_many(monitor: DomainMonitor) -> None:
    rows = sample(3, 40)
    scores, inverted = monitor.scores(rows.features, rows.physics)
    for k in range(40):
        one = monitor.judge(rows.features[k], rows.physics[k])
        assert (one.score, one.inverted) == pytest.approx((scores[k], inverted[k]), rel=1e-6)
        assert (one.level is Level.RED) == (one.score >= RED)


def test_a_larger_margin_refuses_less() -> None:
    rows = sample(2)
    strict, lenient = (
        fit_monitor(rows, SIZES, Shares(foreign=0.5, margin=margin)) for margin in (1.0, 3.0)
    )
    assert lenient.unfamiliar_limit > strict.unfamiliar_limit


def test_one_family_is_enough_and_no_foreign_picture_is_needed() -> None:
    rows = sample(4)
    alone = fit_monitor(rows.where(rows.family == "a"), SIZES)
    score, _ = alone.scores(rows.features[:1] + 50.0, rows.physics[:1])
    assert float(score[0]) >= RED


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        fit_monitor(sample().where(np.arange(240) < 6), SIZES)
    with pytest.raises(ValueError, match="no picture"):
        Sample.of([])


def test_what_is_written_is_what_is_read(monitor: DomainMonitor) -> None:
    content = packed(monitor)
    rows = sample(6, 50)
    again = unpacked(content, SIZES)
    for a, b in zip(
        monitor.scores(rows.features, rows.physics),
        again.scores(rows.features, rows.physics),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert len(content) < 2 << 20


def physics_only(path: Path, **changes: Any) -> Path:
    """Write a bundle without features, with a monitor of the physical checks alone."""
    rows = sample()
    rows = replace(rows, features=np.empty((len(rows), 0), np.float32))
    add_to_bundle(tiny_bundle.write(path, **changes), fit_monitor(rows, ()))
    return path


def test_a_bundle_carries_its_monitor(tmp_path: Path) -> None:
    assert monitor_of(Bundle.load(tiny_bundle.write(tmp_path / "old"))) is None
    bundle = Bundle.load(physics_only(tmp_path / "new"))
    found = monitor_of(bundle)
    assert found is not None and len(found.views) == 1
    assert not list((tmp_path / "new").glob("*.partial"))


def test_a_changed_monitor_is_refused(tmp_path: Path) -> None:
    path = physics_only(tmp_path)
    content = (path / DOMAIN).read_bytes()
    (path / DOMAIN).write_bytes(content[:-1] + b"x")
    with pytest.raises(BundleError, match="SHA-256"):
        Bundle.load(path)


def test_a_monitor_of_another_network_is_refused(monitor: DomainMonitor, tmp_path: Path) -> None:
    path = tiny_bundle.write(tmp_path)
    add_to_bundle(path, monitor)
    with pytest.raises(BundleError, match="view_0_axes has the shape"):
        monitor_of(Bundle.load(path))


def changed(content: bytes, **values: Any) -> bytes:
    """Write the arrays of a monitor anew, some changed, None: left out."""
    with np.load(io.BytesIO(content)) as file:
        arrays = {name: file[name] for name in file.files} | values
    stream = io.BytesIO()
    np.savez(stream, **{name: value for name, value in arrays.items() if value is not None})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"amber": np.float32(np.nan)}, "NaN"),
        ({"amber": np.float32(0.0)}, "above 0"),
        ({"amber": np.float32(1.5)}, "must not be above"),
        ({"amber": None}, "no amber"),
        ({"amber": np.float64(0.5)}, "not float32"),
        ({"amber": np.array([{}], object)}, "cannot be unpacked"),
        ({"more": np.float32(1.0)}, "belongs to no part"),
        ({"view_0_scale": np.zeros(6, np.float32)}, "not above 0"),
        ({"view_1_centre": np.zeros((10, 1), np.float32)}, "shape"),
        ({"foreign_weights": np.zeros(3, np.float32)}, "shape"),
        ({"more": np.zeros(5 << 20, np.float32)}, "bytes"),
    ],
)
def test_a_damaged_monitor_is_refused(
    monitor: DomainMonitor, change: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        unpacked(changed(packed(monitor), **change), SIZES)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 60))
def test_whatever_bytes_come_are_a_monitor_or_one_error(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    content = bytearray(_CONTENT)
    for at in rng.integers(0, len(content), count):
        content[at] = rng.integers(0, 256)
    for cut in (bytes(content), bytes(content[: rng.integers(0, len(content))])):
        with contextlib.suppress(ValueError):
            unpacked(cut, SIZES)


_CONTENT = packed(fit_monitor(sample(), SIZES))


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 130), st.integers(1, 130)),
    st.sampled_from(["noise", "flat", "huge", "tiny", "spike", "none valid"]),
    st.integers(0, 9),
)
def test_physics_of_anything_are_finite(shape: tuple[int, int], kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.poisson(50.0, shape).astype(np.float32)
    valid = rng.random(shape) < 0.95
    if kind == "flat":
        picture[:] = 7.0
    elif kind in ("huge", "tiny"):
        picture *= np.float32(1e28 if kind == "huge" else 1e-28)
    elif kind == "spike":
        picture[0, 0] = 1e20
    elif kind == "none valid":
        valid[:] = False
    found = physics_of(picture, valid)
    assert found.shape == (len(PHYSICS),) and found.dtype == np.float32
    assert np.isfinite(found).all()


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-3, 1e4), st.integers(0, 9))
def test_gain_changes_nothing_that_is_told(gain: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.poisson(80.0 + 20.0 * rng.random((1, 96)), (96, 96)).astype(np.float32)
    valid = np.ones(picture.shape, bool)
    np.testing.assert_allclose(
        physics_of(picture * np.float32(gain), valid), physics_of(picture, valid), atol=0.02
    )


def test_noise_grows_with_brightness_unless_turned() -> None:
    y, x = np.mgrid[:256, :256]
    field = 100.0 * (1.0 + 0.5 * np.sin(x / 40.0) * np.sin(y / 40.0))
    picture = np.random.default_rng(0).poisson(field).astype(np.float32)
    valid = np.ones(picture.shape, bool)
    at = PHYSICS.index("noise_with_mean")
    assert physics_of(picture, valid)[at] > 0.5
    assert physics_of(picture.max() - picture, valid)[at] < -0.5
