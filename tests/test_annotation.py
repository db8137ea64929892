"""Exports of CVAT, masks on disk, and what they say at the size of an ice map."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engines.annotation import (
    AnnotatedImage,
    AnnotationError,
    Bitmap,
    Polygon,
    TiltName,
    check_aspect,
    rasterise,
    read_export,
    tilt_of,
    truths_of_export,
    truths_of_masks,
)
from engines.annotation.coco import decoded
from engines.overlay import ICE, NOT_VALID
from engines.readers.mrc import write_mrc
from tests.drawn import Ring, compressed, run_lengths, write_coco, write_cvat

SIZE = (160, 120)
"""Width and height of the pictures."""
SHAPE = (120, 160)
SQUARE = [(20.0, 10.0), (60.0, 10.0), (60.0, 50.0), (20.0, 50.0)]

coordinates = st.floats(-20.0, 180.0).map(lambda value: round(value, 2))
rings = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=8)


def star(centre: tuple[float, float], radii: list[float]) -> Ring:
    """A polygon that does not cross itself."""
    turns = [2.0 * math.pi * k / len(radii) for k in range(len(radii))]
    return [
        (centre[0] + r * math.cos(t), centre[1] + r * math.sin(t))
        for r, t in zip(radii, turns, strict=True)
    ]


def polygon(*outlines: Ring) -> Polygon:
    return Polygon("ice", tuple(np.array(ring, float) for ring in outlines))


def image(*shapes: Polygon | Bitmap) -> AnnotatedImage:
    return AnnotatedImage("TS_000.png", *SIZE, shapes)


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(st.floats(60.0, 100.0), st.floats(50.0, 70.0)),
    st.lists(st.floats(15.0, 45.0), min_size=3, max_size=12),
)
def test_the_area_of_a_mask_is_that_of_its_polygon(
    centre: tuple[float, float], radii: list[float]
) -> None:
    ring = np.array(star(centre, radii))
    x, y = ring.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2.0
    length = np.hypot(*(ring - np.roll(ring, 1, axis=0)).T).sum()
    fine = rasterise(image(polygon(star(centre, radii))), (240, 320))
    # pixels of a half on the outline are in or out; their errors cancel but for a few
    assert abs(fine.sum() / 4.0 - area) < 0.2 * length


@settings(max_examples=15, deadline=None)
@given(st.lists(rings, max_size=3))
def test_both_formats_of_an_export_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, outlines: list[Ring]
) -> None:
    folder = tmp_path_factory.mktemp("export")
    drawn = {"TS_001_000.png": [("ice", ring) for ring in outlines], "TS_001_001.png": []}
    coco = read_export(write_coco(folder / "coco", SIZE, drawn))
    cvat = read_export(write_cvat(folder / "cvat", SIZE, drawn))
    assert coco.labels == cvat.labels == ("ice",)
    for one, other in zip(coco.images, cvat.images, strict=True):
        assert one.tilt == other.tilt
        assert np.array_equal(rasterise(one, SHAPE), rasterise(other, SHAPE))
    assert not rasterise(coco.images[1], SHAPE).any()


@settings(max_examples=25, deadline=None)
@given(rings)
def test_the_last_point_of_a_ring_may_be_its_first(ring: Ring) -> None:
    once, twice = polygon(ring), polygon([*ring, ring[0]])
    assert np.array_equal(rasterise(image(once), SHAPE), rasterise(image(twice), SHAPE))


def test_a_ring_inside_another_is_a_hole_and_one_in_the_hole_is_not() -> None:
    hole = [(30.0, 20.0), (50.0, 20.0), (50.0, 40.0), (30.0, 40.0)]
    island = [(35.0, 25.0), (45.0, 25.0), (45.0, 35.0), (35.0, 35.0)]
    beside = [(100.0, 60.0), (110.0, 60.0), (110.0, 70.0), (100.0, 70.0)]
    for order in ((SQUARE, hole, island, beside), (beside, island, hole, SQUARE)):
        mask = rasterise(image(polygon(*order)), SHAPE)
        assert mask.sum() == 1600 - 400 + 100 + 100
        assert mask[30, 40] and not mask[22, 32] and mask[12, 22] and mask[65, 105]


def test_a_reduced_picture_is_scaled_to_the_whole_tilt() -> None:
    small, large = (rasterise(image(polygon(SQUARE)), shape) for shape in (SHAPE, (1200, 1600)))
    assert small.sum() == 1600
    assert large.sum() == 160000
    assert large[105, 205] and not large[95, 205]


@pytest.mark.parametrize("shape", [(120, 160), (3000, 4000), (4092, 5456), (121, 160)])
def test_the_aspect_ratio_may_be_rounded(shape: tuple[int, int]) -> None:
    check_aspect(image(), shape)


@pytest.mark.parametrize("shape", [(160, 120), (120, 163), (4092, 5760)])
def test_another_aspect_ratio_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(AnnotationError, match="aspect ratio"):
        check_aspect(image(), shape)


@settings(max_examples=40, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_run_lengths_come_back(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
    counts = run_lengths(mask.T.ravel())
    assert np.array_equal(decoded(counts, *mask.shape), mask)
    assert np.array_equal(decoded(compressed(counts), *mask.shape), mask)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=12))
def test_no_text_of_run_lengths_is_taken_for_more_than_it_is(text: str) -> None:
    try:
        assert decoded(text, 3, 4).shape == (3, 4)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize("kind", ["list", "text"])
def test_masks_of_coco(tmp_path: Path, kind: str) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[10:50, 20:60] = True
    mask[20:30, 30:40] = False
    counts = run_lengths(mask.T.ravel())
    folder = write_coco(tmp_path / "export", SIZE, {"TS_001_000.png": [("ice", SQUARE)]})
    path = folder / "annotations" / "instances_default.json"
    content = json.loads(path.read_text())
    lengths: Any = counts if kind == "list" else compressed(counts)
    content["annotations"][0]["segmentation"] = {"counts": lengths, "size": list(SHAPE)}
    path.write_text(json.dumps(content))
    (one,) = read_export(folder).images
    assert np.array_equal(rasterise(one, SHAPE), mask)
    assert rasterise(one, (60, 80)).sum() == mask.sum() / 4


def xml(shapes: str, name: str = "TS_001_000.png") -> str:
    return (
        f'<annotations><image id="0" name="{name}" width="160" height="120">{shapes}</image>'
        "</annotations>"
    )


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ('<box label="ice" xtl="20" ytl="10" xbr="60" ybr="50"/>', 1600.0),
        ('<box label="ice" xtl="20" ytl="30" xbr="60" ybr="40" rotation="90"/>', 400.0),
        ('<ellipse label="ice" cx="80" cy="60" rx="30" ry="20"/>', math.pi * 600.0),
        ('<mask label="ice" rle="1,2,3,3" left="4" top="5" width="3" height="3"/>', 5.0),
        ('<tag label="bad"/>', 0.0),
    ],
)
def test_other_shapes_of_cvat(tmp_path: Path, shape: str, area: float) -> None:
    (tmp_path / "annotations.xml").write_text(xml(shape))
    (one,) = read_export(tmp_path).images
    mask = rasterise(one, SHAPE)
    assert mask.sum() == pytest.approx(area, rel=0.01)
    if "rotation" in shape:
        rows, columns = np.nonzero(mask)
        assert [int(np.ptp(axis)) + 1 for axis in (rows, columns)] == [40, 10]
        assert (rows.mean(), columns.mean()) == (34.5, 39.5)
    if "rle" in shape:
        assert np.argwhere(mask).tolist() == [[5, 5], [5, 6], [7, 4], [7, 5], [7, 6]]


def test_the_labels_that_mean_ice(tmp_path: Path) -> None:
    beside = [(x + 60.0, y) for x, y in SQUARE]
    drawn = {"TS_001_000.png": [("Crystalline_ice", SQUARE), ("contamination", beside)]}
    labels = ("Crystalline_ice", "contamination")
    folder = write_cvat(tmp_path / "export", SIZE, drawn, labels)
    tilt = TiltName("TS_001", 0)

    def area(*ice_labels: str) -> int:
        truth = truths_of_export(folder, ice_labels).find("", tilt)
        assert truth is not None
        return int(truth.at(SHAPE, SHAPE)[0].sum())

    assert area() == area("Crystalline_ice") == area("contamination") == 1600
    with pytest.raises(AnnotationError, match="no label 'icy'"):
        area("icy")
    only = write_coco(tmp_path / "two", SIZE, {"TS_001_000.png": []}, ("blob", "smear"))
    with pytest.raises(AnnotationError, match="--ice-label"):
        truths_of_export(only)


@settings(max_examples=40, deadline=None)
@given(st.text("aT_.0-x ", min_size=1, max_size=8), st.integers(0, 9999))
def test_names_tell_the_tilt(stem: str, section: int) -> None:
    assert tilt_of(f"{stem}_{section:03d}.png") == (stem, section)
    assert tilt_of(f"images/{stem}_{section:04d}.PNG") == (stem, section)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "holds neither"),
        ("{", "not COCO"),
        ('{"images": [{"id": 1}]}', "not COCO"),
        ("<annotations", "not XML"),
        ("<boxes/>", "not in the format"),
        ("<!DOCTYPE a><annotations/>", "declares entities"),
        (xml('<polyline label="ice" points="1,2;3,4"/>'), "has no area"),
        (xml('<polygon label="ice" points="1,2;3,nan;5,6"/>'), "nan is no coordinate"),
        (xml('<polygon label="ice" points="1,2;3,4"/>'), "three points"),
        (xml('<polygon points="1,2;3,4;5,6"/>'), "no 'label'"),
        (xml('<mask label="i" rle="1,2" left="0" top="0" width="3" height="3"/>'), "fill 3 x 3"),
        (xml("", "TS.png"), "does not tell its tilt"),
    ],
)
def test_what_is_no_export_is_refused_in_one_sentence(
    tmp_path: Path, content: str | None, says: str
) -> None:
    if content is not None:
        is_xml = content.startswith("<")
        path = tmp_path / ("annotations.xml" if is_xml else "annotations/instances_default.json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    with pytest.raises(AnnotationError, match=says) as error:
        truths_of_export(tmp_path)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


def test_two_pictures_of_one_tilt_are_refused(tmp_path: Path) -> None:
    drawn: dict[str, list[Any]] = {"a/TS_000.png": [], "b/TS_0000.png": []}
    with pytest.raises(AnnotationError, match="two pictures of TS"):
        truths_of_export(write_cvat(tmp_path / "export", SIZE, drawn))


def test_masks_on_disk(tmp_path: Path) -> None:
    values = np.zeros(SHAPE, np.int8)
    values[10:50, 20:60] = ICE
    values[:, 120:] = NOT_VALID
    (tmp_path / "grid1").mkdir()
    write_mrc(tmp_path / "grid1" / "TS_001_0003.mask.mrc", values, 13.5)
    cv2.imwrite(str(tmp_path / "TS_002_0000.png"), np.where(values == ICE, 255, 0).astype(np.uint8))
    cv2.imwrite(str(tmp_path / "TS_003_0000.overlay.png"), np.zeros(SHAPE, np.uint8))
    matches = truths_of_masks(tmp_path)
    stored = matches.find("grid1", TiltName("TS_001", 3))
    drawn = matches.find("elsewhere", TiltName("TS_002", 0))
    assert stored is not None and drawn is not None
    assert matches.find("", TiltName("TS_003", 0)) is None
    assert len(matches) == 2 and matches.left == []
    ice, valid = stored.at((60, 80), (1200, 1600))
    assert (ice.sum(), valid is not None and valid.sum()) == (400, 3600)
    ice, valid = drawn.at(SHAPE, SHAPE)
    assert (ice.sum(), valid) == (1600, None)
    with pytest.raises(AnnotationError, match="aspect ratio"):
        stored.at(SHAPE, (1600, 1200))


def test_masks_that_could_be_of_two_tilts_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "TS_0000.png"), np.zeros(SHAPE, np.uint8))
    with pytest.raises(AnnotationError, match="Several annotations"):
        truths_of_masks(tmp_path).find("c", TiltName("TS", 0))
    matches = truths_of_masks(tmp_path / "a")
    matches.find("a", TiltName("TS", 0))
    with pytest.raises(AnnotationError, match="two folders"):
        matches.find("b", TiltName("TS", 0))
    with pytest.raises(AnnotationError, match="holds no mask"):
        truths_of_masks(tmp_path / "c")


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    write_mrc(tmp_path / "A_0000.mask.mrc", np.full(SHAPE, 7, np.int8), 13.5)
    cv2.imwrite(str(tmp_path / "B_0000.png"), np.zeros((*SHAPE, 3), np.uint8))
    (tmp_path / "C_0000.mask.mrc").write_bytes(b"cut")
    matches = truths_of_masks(tmp_path)
    for stem in "ABC":
        truth = matches.find("", TiltName(stem, 0))
        assert truth is not None
        with pytest.raises(AnnotationError, match=f"{stem}_0000"):
            truth.at(SHAPE, SHAPE)
