"""Plans are built by the real library, and what it cannot build is one sentence."""

import copy
import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from engines.bundle import Bundle
from engines.plans.build import BuildWatch, build_plan, graph_of
from engines.plans.key import BuildOptions, Precision
from tests import tiny_bundle
from tests.plans import builder, refused

SMALL = BuildOptions(best_side_px=64, most_side_px=96, max_batch=2)
TINY = tiny_bundle.tiny_graph()


@pytest.mark.parametrize("graph", [TINY, tiny_bundle.memory_graph()], ids=["single", "memory"])
def test_a_graph_becomes_a_plan_without_a_card(
    graph: onnx.ModelProto, capfd: pytest.CaptureFixture[str]
) -> None:
    built = build_plan(builder(), graph.SerializeToString(), BuildOptions())
    assert len(built.plan) > len(graph.SerializeToString()) and built.seconds > 0.0
    assert capfd.readouterr() == ("", ""), "the library writes on the terminal"


def test_each_card_of_a_plan_adds_to_it() -> None:
    there, graph = builder(), TINY.SerializeToString()
    named = [there.capabilities[:count] for count in (1, 2)]
    plans = [
        build_plan(there, graph, SMALL.model_copy(update={"compute_capabilities": one})).plan
        for one in named
    ]
    assert len(set(plans)) == len(plans)


def test_cards_that_the_library_does_not_know_are_refused_before_anything_is_built() -> None:
    options = SMALL.model_copy(update={"compute_capabilities": ("8.6", "1.0")})
    watch = BuildWatch()
    work = partial(build_plan, builder(), TINY.SerializeToString(), options, watch=watch)
    assert "1.0" in refused(work, "capability")
    assert watch.phase == ""


@pytest.mark.parametrize("operator", ["Det", "Unique", "NotAnOperator"])
def test_an_operator_that_the_library_lacks_is_named(operator: str) -> None:
    graph = copy.deepcopy(TINY)
    graph.graph.node[3].op_type = operator
    sentence = refused(partial(build_plan, builder(), graph.SerializeToString(), SMALL), "graph")
    assert operator in sentence and "onnxruntime" in sentence


@pytest.mark.parametrize(
    "graph",
    [b"", b"garbage", TINY.SerializeToString()[:-200], bytes(1000)],
    ids=["empty", "text", "cut", "zeros"],
)
def test_what_is_no_graph_is_refused(graph: bytes) -> None:
    assert "export" in refused(partial(build_plan, builder(), graph, SMALL), "graph")


def test_a_graph_that_contradicts_itself_is_refused() -> None:
    graph = copy.deepcopy(TINY)
    slope = next(one for one in graph.graph.initializer if one.name == "slope")
    wrong = np.ones((8, 3, 1, 1), np.float32)
    slope.CopyFrom(numpy_helper.from_array(wrong, "slope"))
    work = partial(build_plan, builder(), graph.SerializeToString(), SMALL)
    assert "Conv" in refused(work, "graph")


def test_a_build_that_is_cancelled_ends_with_a_sentence() -> None:
    watch = BuildWatch()
    watch.cancel()
    work = partial(build_plan, builder(), TINY.SerializeToString(), SMALL, watch=watch)
    assert "ended" in refused(work, "cancelled")


def test_a_build_is_watched_from_another_thread_that_runs_meanwhile() -> None:
    watch, seen, done = BuildWatch(), [0.0], threading.Event()

    def look() -> None:
        while not done.wait(0.001):
            seen.append(watch.fraction)

    looking = threading.Thread(target=look)
    looking.start()
    build_plan(builder(), TINY.SerializeToString(), BuildOptions(), watch=watch)
    done.set()
    looking.join()
    assert seen == sorted(seen) and 0.5 < watch.fraction <= 1.0
    assert watch.phase
    assert len(seen) > 3, "the build held up the interpreter"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(0, 9)), max_size=30))
def test_progress_never_falls_whatever_the_library_says(said: list[tuple[int, int, int]]) -> None:
    watch = BuildWatch()
    fractions = []
    for phase, steps, step in said:
        hear: list[Callable[[], object]] = [
            partial(watch.started, str(phase), steps),
            partial(watch.stepped, str(phase), step),
            partial(watch.stepped, str(phase), step),
            partial(watch.finished, str(phase)),
        ]
        hear[step % 4]()
        fractions.append(watch.fraction)
    assert fractions == sorted(fractions)
    assert all(0.0 <= one <= 1.0 for one in fractions)
    assert watch.stepped("0", 0)
    watch.cancel()
    assert not watch.stepped("0", 0)


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_timings_are_handed_on_where_the_library_keeps_them() -> None:
    # tensorrt_rtx has the calls of the full package and keeps nothing: what fits is taken, what
    # does not is passed over.
    class Keeping(type(builder())):  # type: ignore[misc]
        keeps_timings = True

    there = builder()
    keeping = Keeping(**{name: getattr(there, name) for name in there.__slots__})
    graph = TINY.SerializeToString()
    first = build_plan(keeping, graph, SMALL)
    assert first.timings
    for kept in (first.timings, b"garbage"):
        again = build_plan(keeping, graph, SMALL, timings=kept)
        assert again.plan and again.timings


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_the_shipped_bundle_becomes_a_plan(precision: Precision) -> None:
    there, options = builder(), BuildOptions(precision=precision)
    started_s = time.monotonic()
    built = build_plan(there, graph_of(Bundle.load("default"), options), options)
    assert 5_000_000 < len(built.plan) < 100_000_000
    assert built.seconds < time.monotonic() - started_s + 1.0


def test_the_messages_of_a_failed_build_are_not_laid_to_the_next() -> None:
    there = builder()
    refused(partial(build_plan, there, b"garbage", SMALL), "graph")
    assert there.messages
    assert build_plan(there, TINY.SerializeToString(), SMALL).timings == b""
    assert not there.messages
