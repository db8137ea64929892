"""Masks to polygons and back, through both formats of CVAT and through files as it writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.annotation import (
    LABELS,
    AnnotatedImage,
    AnnotationError,
    Annotations,
    Bitmap,
    Polygon,
    as_coco,
    as_cvat_images,
    as_labels,
    meanings_in,
    opened_export,
    outlines_of,
    picture_of,
    rasterise,
    read_export,
)
from engines.annotation.labels import Meaning, meaning_of
from engines.annotation.outlines import LEAST_IOU
from engines.annotation.picture import LONGEST_SIDE_PX

GOLDEN = Path(__file__).parent / "golden" / "cvat"
Mask = NDArray[np.bool_]
FORMATS = {"annotations/instances_default.json": as_coco, "annotations.xml": as_cvat_images}


def blobs(seed: int, shape: tuple[int, int], share: float, width_px: float) -> Mask:
    """Random areas with holes in them, some at the edge, some a pixel wide."""
    noise = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), width_px)
    return np.asarray(smooth > np.quantile(smooth, 1.0 - share))


def grown(mask: Mask, pixels: int = 1) -> Mask:
    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0)


def iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def written(folder: Path, name: str, annotations: Annotations) -> Path:
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(FORMATS[name](annotations))
    return folder


masks = st.builds(
    blobs,
    st.integers(0, 10**6),
    st.tuples(st.integers(8, 60), st.integers(8, 60)),
    st.floats(0.05, 0.8),
    st.floats(0.5, 6.0),
)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=15, deadline=None)
@given(drawn=st.lists(masks, min_size=1, max_size=3), scale=st.floats(1.0, 4.0))
def test_masks_come_back_within_a_pixel(
    name: str, drawn: list[Mask], scale: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    there_and_back(name, drawn, scale, tmp_path_factory.mktemp("export"))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=400, deadline=None)
@given(drawn=st.lists(masks, min_size=1, max_size=3), scale=st.floats(1.0, 4.0))
def test_many_masks_come_back_within_a_pixel(
    name: str, drawn: list[Mask], scale: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    there_and_back(name, drawn, scale, tmp_path_factory.mktemp("export"))


def there_and_back(name: str, drawn: list[Mask], scale: float, folder: Path) -> None:
    """Draw masks of several labels over each other, write them, and read them again."""
    rows, columns = drawn[0].shape
    drawn = [cv2.resize(one.astype(np.uint8), (columns, rows)) > 0 for one in drawn]
    size = (round(columns * scale), round(rows * scale))
    to_picture = (size[0] / columns, size[1] / rows)
    labels = [one.name for one in LABELS[: len(drawn)]]
    shapes = tuple(
        Polygon(label, (ring,))
        for label, mask in zip(labels, drawn, strict=True)
        for ring in outlines_of(mask, to_picture)
    )
    images = (AnnotatedImage("TS_1_000.png", *size, shapes), AnnotatedImage("TS_1_001.png", *size))
    annotations = Annotations(Path(), tuple(labels), images)
    found = read_export(written(folder, name, annotations))
    assert found.labels == annotations.labels
    assert [one.name for one in found.images] == [one.name for one in images]
    for label, mask in zip(labels, drawn, strict=True):
        # what lies outside the picture is no ice
        again, mask = np.pad(rasterise(found.images[0], mask.shape, {label}), 1), np.pad(mask, 1)
        assert not (again & ~grown(mask)).any()
        assert not (~again & ~grown(~mask)).any()
    assert not rasterise(found.images[1], (rows, columns)).any()


@settings(max_examples=25, deadline=None)
@given(masks)
def test_polygons_agree_with_their_mask(mask: Mask) -> None:
    again = np.zeros_like(mask)
    for ring in outlines_of(mask):
        again |= rasterise(
            AnnotatedImage("", mask.shape[1], mask.shape[0], (Polygon("ice", (ring,)),)), mask.shape
        )
    assert iou(mask, again) >= LEAST_IOU - 0.005


def test_smooth_ice_needs_few_corners_and_keeps_its_holes() -> None:
    rows, columns = np.mgrid[0:300, 0:300]
    away = np.hypot(rows - 150, columns - 150)
    ring = (away < 120) & (away > 60)
    (outline,) = outlines_of(ring)
    assert len(outline) < 80
    image = AnnotatedImage("", 300, 300, (Polygon("ice", (outline,)),))
    again = rasterise(image, (300, 300))
    assert iou(ring, again) > 0.985
    assert not again[150, 150] and again[150, 60]


@pytest.mark.parametrize("name", FORMATS)
def test_painted_masks_and_rings_in_rings_come_back(name: str, tmp_path: Path) -> None:
    square = np.array([[2.0, 2.0], [22.0, 2.0], [22.0, 22.0], [2.0, 22.0]])
    hole = np.array([[6.0, 6.0], [16.0, 6.0], [16.0, 16.0], [6.0, 16.0]])
    painted = blobs(1, (9, 12), 0.5, 2.0)
    shapes = (Polygon("ice", (square, hole)), Bitmap("ignore", 25, 3, painted))
    image = AnnotatedImage("a_000.png", 40, 30, shapes)
    (found,) = read_export(
        written(tmp_path, name, Annotations(Path(), ("ice", "ignore"), (image,)))
    ).images
    for label in ("ice", "ignore"):
        expected = rasterise(image, (30, 40), {label})
        assert expected.any()
        assert np.array_equal(rasterise(found, (30, 40), {label}), expected)
    assert rasterise(found, (30, 40), {"ice"}).sum() == 400 - 100


@pytest.mark.parametrize("name", ["images.xml", "coco_lists.json", "coco_texts.json"])
def test_files_as_cvat_writes_them(name: str) -> None:
    """One task in each form: attributes, groups, z order, painted masks, an empty picture."""
    found = read_export(GOLDEN / name)
    assert found.labels == ("ice", "cubic", "ignore")
    first, empty = found.images
    assert (first.tilt, empty.tilt) == (("TS_001", 7), ("TS_001", 12))
    assert (first.width_px, first.height_px, empty.shapes) == (40, 30, ())
    ice = rasterise(first, (30, 40), {"ice"})
    assert ice.sum() == 20 * 20 - 10 * 10 + 3
    assert ice[4, 4] and not ice[10, 10]
    assert [tuple(at) for at in np.argwhere(ice[25:])] == [(1, 31), (1, 32), (2, 32)]
    assert rasterise(first, (30, 40), {"cubic"}).sum() == 4 * 3
    assert rasterise(first, (30, 40), {"ignore"}).sum() == 6 * 5
    meanings = meanings_in(found)
    assert sorted(meanings.ice) == ["cubic", "ice"] and sorted(meanings.ignore) == ["ignore"]


def test_labels_are_those_that_the_constructor_takes() -> None:
    told: list[dict[str, Any]] = json.loads(as_labels([one.name for one in LABELS]))
    assert [one["name"] for one in told] == [one.name for one in LABELS]
    assert all(set(one) == {"name", "color", "type", "attributes"} for one in told)
    assert len({one["color"] for one in told}) == len(told)


@pytest.mark.parametrize(
    ("label", "meaning"),
    [
        *((one.name, one.meaning) for one in LABELS),
        ("Crystalline ice", Meaning.ICE),
        ("Stacking-disordered ice", Meaning.ICE),
        ("No ice", Meaning.NOT_ICE),
        ("contamination", Meaning.NOT_ICE),
        ("Ignored", Meaning.IGNORE),
        ("device", None),
    ],
)
def test_words_of_labels_are_understood(label: str, meaning: Meaning | None) -> None:
    assert meaning_of(label) is meaning


@pytest.mark.parametrize("shape", [(100, 80), (1280, 900), (4096, 4096), (2046, 2880)])
def test_pictures_are_reduced_and_never_enlarged(shape: tuple[int, int]) -> None:
    tilt = np.full(shape, 30, np.int16)
    tilt[: shape[0] // 10] = 10
    tilt[0, 0] = 30_000  # a hot pixel must not darken the rest
    picture = picture_of(tilt)
    assert max(picture.shape) == min(LONGEST_SIDE_PX, max(shape))
    assert picture.shape[0] / picture.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.002)
    # row 0 is row 0
    assert picture[2].mean() < 10 < 240 < picture[-3].mean()


def test_a_picture_of_what_is_not_finite() -> None:
    tilt = np.random.default_rng(0).normal(30.0, 3.0, (64, 64)).astype(np.float32)
    tilt[5, 5], tilt[6, 6] = np.nan, np.inf
    picture = picture_of(tilt)
    assert 60 < picture[20:].mean() < 200


def test_a_folder_is_opened_as_it_is(tmp_path: Path) -> None:
    with opened_export(tmp_path) as opened:
        assert opened.path == opened.named == tmp_path
    with pytest.raises(AnnotationError, match="holds neither"):
        read_export(tmp_path)
