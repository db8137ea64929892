"""`engines.bundle`: what is damaged, foreign or of another version is refused in one sentence."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from engines.bundle import DEFAULT_DIRECTORY, GRAPH, MANIFEST, Bundle, manifest_entry
from engines.calibrations import PiecewiseCalibration
from engines.errors import BundleError
from engines.plans.key import HALF_GRAPH
from tests import tiny_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle.write(tmp_path / "bundle")


def refusal(path: Path) -> str:
    """Load what must not load; returns the sentence."""
    with pytest.raises(BundleError) as caught:
        Bundle.load(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".") and ";" in sentence, "one sentence with what to do"
    assert str(path) in sentence
    return sentence


def change(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def calibration(**changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = tiny_bundle.manifest_of(b"")["calibration"]
    return {**usual, **changes}


def test_reads_what_was_written(bundle: Path) -> None:
    loaded = Bundle.load(bundle)
    assert (loaded.name, loaded.version) == ("tiny", "1")
    assert loaded.manifest.channels == tiny_bundle.CHANNELS
    assert loaded.manifest.threshold == 0.5
    assert loaded.read(GRAPH) == (bundle / GRAPH).read_bytes()
    assert Bundle.load(str(bundle)) == loaded


def test_folder_may_be_a_link_and_hold_other_files(bundle: Path, tmp_path: Path) -> None:
    (bundle / "README.md").write_text("a model card")
    (tmp_path / "current").symlink_to(bundle)
    assert Bundle.load(tmp_path / "current").name == "tiny"


def test_every_listed_file_is_checked(bundle: Path) -> None:
    (bundle / "weights.safetensors").write_bytes(b"weights")
    files = json.loads((bundle / MANIFEST).read_text())["files"]
    change(bundle, files={**files, "weights.safetensors": manifest_entry(b"weights")})
    assert Bundle.load(bundle).read("weights.safetensors") == b"weights"
    (bundle / "weights.safetensors").write_bytes(b"Weights")
    assert "weights.safetensors" in refusal(bundle)


def test_bytes_are_checked_again_when_they_are_used(bundle: Path) -> None:
    loaded = Bundle.load(bundle)
    (bundle / GRAPH).write_bytes(b"other")
    with pytest.raises(BundleError, match="SHA-256"):
        loaded.read(GRAPH)


def test_a_file_that_is_not_listed_is_not_read(bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"model_fp16\.onnx"):
        Bundle.load(bundle).read("model_fp16.onnx")


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_a_bundle_is_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    assert "not a folder" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", [MANIFEST, GRAPH])
def test_missing_file(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert name in refusal(bundle)


@pytest.mark.parametrize("name", [MANIFEST, GRAPH])
def test_links_are_refused(bundle: Path, name: str) -> None:
    (bundle / name).rename(bundle / "elsewhere")
    (bundle / name).symlink_to(bundle / "elsewhere")
    assert "symbolic link" in refusal(bundle)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_without_waiting(
    bundle: Path, make: Callable[[Path], None]
) -> None:
    (bundle / GRAPH).unlink()
    make(bundle / GRAPH)
    refusal(bundle)


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "a/b", "..", ".", "", ".hidden", "a\\b", "a\x00b"]
)
def test_file_names_stay_in_the_folder(bundle: Path, name: str) -> None:
    files = json.loads((bundle / MANIFEST).read_text())["files"]
    change(bundle, files={**files, name: manifest_entry(b"")})
    assert "files" in refusal(bundle)


@pytest.mark.parametrize("schema", ["icewatch.bundle/1", "icewatch.bundle/3", "other", None, 1])
def test_other_schema(bundle: Path, schema: object) -> None:
    change(bundle, schema=schema)
    sentence = refusal(bundle)
    assert "icewatch.bundle/2" in sentence and repr(schema) in sentence


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "3", "null", '{"schema": NaN}', "\xff", "[" * 9999]
)
def test_manifest_that_is_no_manifest(bundle: Path, text: str) -> None:
    (bundle / MANIFEST).write_bytes(text.encode("latin1"))
    refusal(bundle)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("key", ["threshold", "min_part_nm2", "training"])
def test_numbers_are_numbers(bundle: Path, key: str, number: str) -> None:
    change(bundle, **{key: {"deep": ["HERE"]} if key == "training" else "HERE"})
    text = (bundle / MANIFEST).read_text().replace('"HERE"', number)
    (bundle / MANIFEST).write_text(text)
    refusal(bundle)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"surprise": 1}, "surprise"),
        ({"name": ""}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": 1.0}, "threshold"),
        ({"threshold": "high"}, "threshold"),
        ({"pixel_size_angstrom": -1.0}, "pixel_size_angstrom"),
        ({"min_part_nm2": -1.0}, "min_part_nm2"),
        ({"channels": []}, "channels"),
        ({"channels": ["ice_0.10", "ice_0.10"]}, "channels"),
        ({"ice_channel": "snow"}, "snow"),
        ({"files": {}}, GRAPH),
        ({"files": {GRAPH: {"sha256": "abc", "bytes": 1}}}, "sha256"),
        ({"files": {GRAPH: {"sha256": "0" * 64, "bytes": -1}}}, "bytes"),
        ({"calibration": calibration(kind="spline")}, "calibration.kind"),
        ({"calibration": calibration(predicted_percent=[0, 0])}, "predicted_percent"),
        ({"calibration": calibration(predicted_percent=[])}, "predicted_percent"),
        ({"calibration": calibration(percent=[50.0, 40.0])}, "fall"),
        ({"calibration": calibration(low=[0.0])}, "one value for each"),
        ({"calibration": calibration(low=[5.0, 95.0])}, "between"),
        ({"calibration": calibration(high=[5.0, 101.0])}, "high"),
    ],
)
def test_manifest_keys_are_checked(bundle: Path, changes: dict[str, Any], word: str) -> None:
    change(bundle, **changes)
    assert word in refusal(bundle)


def test_calibration_is_straight_between_knots_and_level_beyond(tmp_path: Path) -> None:
    knots = calibration(
        predicted_percent=[1.0, 11.0, 31.0],
        percent=[0.0, 10.0, 20.0],
        low=[0.0, 5.0, 10.0],
        high=[2.0, 12.0, 42.0],
    )
    path = tiny_bundle.write(tmp_path, calibration=knots)
    calibrate = Bundle.load(path).manifest.calibration
    assert isinstance(calibrate, PiecewiseCalibration)
    assert calibrate(0.0) == calibrate(1.0) == (0.0, 0.0, 2.0)
    assert calibrate(6.0) == pytest.approx((5.0, 2.5, 7.0))
    assert calibrate(21.0) == pytest.approx((15.0, 7.5, 27.0))
    assert calibrate(31.0) == calibrate(99.0) == (20.0, 10.0, 42.0)


def graph_with(edit: Callable[[onnx.ModelProto], None]) -> bytes:
    model = tiny_bundle.tiny_graph()
    edit(model)
    return bytes(model.SerializeToString())


def graph_of_nan() -> bytes:
    """A graph of the right kind whose weights are not numbers."""

    def edit(model: onnx.ModelProto) -> None:
        weights = next(one for one in model.graph.initializer if one.name == "offset")
        weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.nan, "offset"))

    return graph_with(edit)


def _rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "image"


def _drop_output(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


def _half_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def _fixed_height(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 512


def _fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1


def _other_channels(model: onnx.ModelProto) -> None:
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 5


def _other_rank(model: onnx.ModelProto) -> None:
    del model.graph.input[1].type.tensor_type.shape.dim[3]


def _external_initializer(model: onnx.ModelProto) -> None:
    entry = model.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "../../secret"


def _external_location(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def _external_constant(model: onnx.ModelProto) -> None:
    hidden = helper.make_tensor("hidden", TensorProto.FLOAT, [1], [0.0])
    hidden.data_location = TensorProto.EXTERNAL
    body = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=hidden)], "body", [], []
    )
    node = helper.make_node("If", ["one"], ["x"], then_branch=body, else_branch=body)
    model.graph.node.append(node)


def _external_in_function(model: onnx.ModelProto) -> None:
    hidden = helper.make_tensor("hidden", TensorProto.FLOAT, [1], [0.0])
    hidden.data_location = TensorProto.EXTERNAL
    node = helper.make_node("Constant", [], ["c"], value=hidden)
    opset = helper.make_opsetid("", 17)
    model.functions.append(helper.make_function("own", "F", [], ["c"], [node], [opset]))


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (_rename_input, "image"),
        (_drop_output, "outputs"),
        (_half_input, "picture"),
        (_fixed_height, "picture"),
        (_fixed_batch, "probability"),
        (_other_channels, "area"),
        (_other_rank, "valid"),
        (_external_initializer, "other files"),
        (_external_location, "other files"),
        (_external_constant, "other files"),
        (_external_in_function, "other files"),
    ],
)
def test_graphs_of_another_kind(
    tmp_path: Path, edit: Callable[[onnx.ModelProto], None], word: str
) -> None:
    assert word in refusal(tiny_bundle.write(tmp_path, graph_with(edit)))


@pytest.mark.parametrize("graph", [b"", b"PK\x03\x04", b"\x08", b"\x3a\xff\x01", b"\xff" * 20])
def test_graphs_that_are_none(tmp_path: Path, graph: bytes) -> None:
    assert "ONNX" in refusal(tiny_bundle.write(tmp_path, graph))


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_changed_byte_of_the_graph_is_noticed(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tiny_bundle.write(tmp_path_factory.mktemp("flip"))
    content = bytearray((path / GRAPH).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (path / GRAPH).write_bytes(content)
    assert "SHA-256" in refusal(path)
    shutil.rmtree(path)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_changed_byte_of_the_manifest_never_surprises(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tiny_bundle.write(tmp_path_factory.mktemp("flip"))
    content = bytearray((path / MANIFEST).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (path / MANIFEST).write_bytes(content)
    try:
        Bundle.load(path)  # a changed letter of its name is still a manifest
    except BundleError as error:
        assert "\n" not in str(error)
    shutil.rmtree(path)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_damaged_graph_with_the_right_hash_never_surprises(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(tiny_bundle.tiny_graph().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tiny_bundle.write(
        tmp_path_factory.mktemp("flip"), bytes(content[: data.draw(st.integers(0, 2000))])
    )
    try:
        Bundle.load(path)
    except BundleError as error:
        assert "\n" not in str(error)
    shutil.rmtree(path)


@pytest.mark.skipif(not DEFAULT_DIRECTORY.is_dir(), reason="no bundle is shipped yet")
def test_the_shipped_bundle_is_whole() -> None:
    shipped = Bundle.load("default").manifest
    assert {"ice_0.10", "hexagonal", "cubic", "stacking_disordered", "not_valid"} <= set(
        shipped.channels
    )
    sizes = [file.bytes for file in shipped.files.values()]
    assert np.sum(sizes) <= 40e6


def test_onnx_runtime_reports_its_use_to_nobody() -> None:
    asked = (
        "import os\n"
        "from engines.backends.onnx_runtime import OnnxRuntimeSettings\n"
        "from engines.bundle import Bundle\n"
        "OnnxRuntimeSettings().build(Bundle.load('default'))\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    said = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, env=clean
    )
    assert said.stdout == "1\n"


@pytest.mark.parametrize("graph", [GRAPH, HALF_GRAPH])
def test_the_shipped_graphs_tell_nothing_of_where_they_were_made(graph: str) -> None:
    assert b".py" not in (DEFAULT_DIRECTORY / graph).read_bytes()
