"""The proof of a bundle in a process of its own: what hangs, dies or talks nonsense is refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines import bundle_proof
from engines.bundle import Bundle
from engines.bundle_proof import Proof, prove
from engines.errors import EngineError
from engines.reference import REFERENCE, KnownTilt, packed
from tests import tiny_bundle
from tests.bundle_store_at import made
from tests.daemon import picture
from tests.test_bundle_store import with_file
from tests.waiting import wait_until


def endless(model: Any) -> None:
    """Let the graph count to nearly for ever before it answers."""
    graph = model.graph
    same = [helper.make_tensor_value_info(name, kind, []) for name, kind in PORTS]
    ends = [helper.make_tensor_value_info(name, kind, []) for name, kind in ENDS]
    nodes = [helper.make_node("Identity", ["go"], ["go_on"])]
    nodes += [helper.make_node("Add", ["value", "value"], ["doubled"])]
    body = helper.make_graph(nodes, "body", same, ends)
    loop = helper.make_node("Loop", ["times", "always", "zero"], ["never"], body=body)
    out = next(node for node in graph.node if "area" in node.output)
    out.output[0] = "area_soon"
    graph.node.extend([loop, helper.make_node("Add", ["area_soon", "never"], ["area"])])
    constants = {"times": np.array(2**60), "always": np.array(True), "zero": np.float32(0.0)}
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )


PORTS = (("step", TensorProto.INT64), ("go", TensorProto.BOOL), ("value", TensorProto.FLOAT))
ENDS = (("go_on", TensorProto.BOOL), ("doubled", TensorProto.FLOAT))


def bundle_with(folder: Path, edit: Any) -> Path:
    model = tiny_bundle.tiny_graph()
    edit(model)
    return tiny_bundle.write(folder, model.SerializeToString())


@pytest.mark.slow
def test_a_sound_bundle_is_proved_and_what_is_wrong_is_one_sentence(tmp_path: Path) -> None:
    assert Proof(made(tmp_path)).wait() is None
    said = Proof(made(tmp_path, version="2", schema="x")).wait()
    assert said and "icewatch.bundle/2" in said and "\n" not in said


def test_a_bundle_that_measures_none_of_its_own_tilts_is_refused(tmp_path: Path) -> None:
    good = KnownTilt(picture(10.0).astype(np.float32), 0.0, 0)
    blank = KnownTilt(np.zeros((192, 224), np.float32), 0.0, 0)
    prove(Bundle.load(with_file(made(tmp_path), REFERENCE, packed([good, blank]))))
    with pytest.raises(EngineError, match="none of its own known tilts"):
        prove(Bundle.load(with_file(made(tmp_path), REFERENCE, packed([blank]))))


@pytest.mark.slow
def test_a_network_that_never_ends_is_refused_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_proof, "LIMIT_S", 8.0)
    said = Proof(bundle_with(tmp_path / "endless", endless)).wait()
    assert said and "took over 8 s" in said


def child_at_proof() -> int | None:
    """Process that proves a bundle; proc(5) may leave out one while another ends."""
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            if b"bundle_proof" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
    return None


@pytest.mark.slow
def test_a_proof_that_dies_is_told(tmp_path: Path) -> None:
    proof = Proof(bundle_with(tmp_path / "endless", endless))
    child = wait_until(child_at_proof, "its process")
    assert not proof.is_over
    os.kill(child, signal.SIGSEGV)
    wait_until(lambda: proof.is_over, "its end")
    said = proof.failure()
    assert said == "its proof died (status -11); see that there is memory for it"
