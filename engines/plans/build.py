"""From the ONNX graph of a bundle to a plan.

The network is strongly typed: what is half and what is float32 was settled in torch when the
bundle was made, and the library changes nothing of it. One optimisation profile covers all sizes.
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/advanced.html
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engines.bundle import MEMORY_STRIDE, Bundle
from engines.plans.errors import PlanError, Reason
from engines.plans.key import GRAPHS, BuildOptions
from engines.plans.library import Library, first_line

Shapes = Callable[[str], Sequence[tuple[int, ...]]]
_AT_A_QUARTER = ("memory", "memory_weight")
"""Inputs of a graph that have a quarter of the picture's height and width."""
_FAILURES = (RuntimeError, MemoryError, TypeError, ValueError)
_ADVICE: tuple[tuple[tuple[str, ...], Reason, str], ...] = (
    (
        ("out of memory", "outofmemory", "bad_alloc"),
        "memory",
        "free memory on the card (nvidia-smi shows who holds it) and try again",
    ),
    (
        ("driver", "no cuda-capable device", "cudaerror", "cuda failure", "cuda initialization"),
        "gpu",
        "see that nvidia-smi lists the card, and install the driver that this library asks for",
    ),
)


@dataclass(frozen=True, slots=True)
class Built:
    """A plan and what the next build of its kind can use."""

    plan: bytes
    timings: bytes
    """Timing cache; empty where the library keeps none."""
    seconds: float


class BuildWatch:
    """Shows how far a build in another thread is, and can end it."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._open: list[_Phase] = []
        self.fraction = 0.0
        """0 to 1, never falling."""
        self.phase = ""
        """The library's words for what it is doing."""

    def cancel(self) -> None:
        """Let the build end at its next step, with a `PlanError`."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def started(self, phase: str, steps: int) -> None:
        """Hear from the library that a phase began, within the one that is open."""
        self._open.append(_Phase(phase, max(1, steps)))
        self.phase = phase

    def stepped(self, phase: str, step: int) -> bool:
        """Hear that a step is done; False asks the library to end the build."""
        for one in self._open:
            if one.name == phase:
                one.done = min(one.steps, step + 1)
        self._advance()
        return not self.cancelled

    def finished(self, phase: str) -> None:
        """Hear that a phase, with all that is within it, is over."""
        names = [one.name for one in self._open]
        if phase in names:
            del self._open[names.index(phase) :]

    def _advance(self) -> None:
        fraction, share = 0.0, 1.0
        for one in self._open:
            fraction += share * one.done / one.steps
            share /= one.steps
        self.fraction = max(self.fraction, min(1.0, fraction))


@dataclass(slots=True)
class _Phase:
    name: str
    steps: int
    done: int = 0


def graph_of(bundle: Bundle, options: BuildOptions) -> bytes:
    """Read the graph that a plan is built of; raises `BundleError`."""
    return bundle.read(GRAPHS[options.precision])


def build_plan(
    library: Library,
    graph: bytes,
    options: BuildOptions,
    *,
    timings: bytes = b"",
    watch: BuildWatch | None = None,
    shapes: Shapes | None = None,
) -> Built:
    """Build a plan; takes seconds to minutes, and other threads run meanwhile.

    `timings` is what an earlier build gave; what does not fit is passed over. `shapes` tells of an
    input, by its name, the least, the usual and the largest shape, where these are not those of a
    network. Raises `PlanError`
    with one sentence for a graph or cards that the library does not take, where memory or the
    driver do not do, and after `watch.cancel()`.
    """
    started_s = time.monotonic()
    watch = watch or BuildWatch()
    # The classes named here must outlive each other in this order: the library holds bare pointers.
    monitor = _monitor(library.module, watch)
    capabilities = [library.capability(named) for named in options.compute_capabilities]
    library.messages.clear()
    try:
        builder = library.module.Builder(library.logger)
        network = _parse(library, builder, graph)
        config = builder.create_builder_config()
        config.progress_monitor = monitor
        config.add_optimization_profile(_profile(builder, network, options, shapes))
        if shapes is not None:  # pixels are summed up: ten bits of them would not do
            config.clear_flag(library.module.BuilderFlag.TF32)
        if capabilities:
            config.num_compute_capabilities = len(capabilities)
            for at, capability in enumerate(capabilities):
                config.set_compute_capability(capability, at)
        learnt = _learnt(config, timings) if library.keeps_timings else None
        plan = builder.build_serialized_network(network, config)
        if plan is None or watch.cancelled:
            raise _failed(library, watch)
        kept = b"" if learnt is None else bytes(learnt.serialize())
        return Built(bytes(plan), kept, time.monotonic() - started_s)
    except _FAILURES as error:
        raise _failed(library, watch, error) from error


def _learnt(config: Any, timings: bytes) -> Any:
    """Make the timing cache of a build, which must live as long as the build."""
    for content in (timings, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return cache
    return None


def _parse(library: Library, builder: Any, graph: bytes) -> Any:
    module = library.module
    network = builder.create_network(_network_flags(library))
    parser = module.OnnxParser(network, library.logger)
    if not parser.parse(graph) or network.num_inputs == 0:
        raise _not_taken(library, [parser.get_error(at) for at in range(parser.num_errors)])
    return network


def _network_flags(library: Library) -> int:
    """Ask for strong typing, which TensorRT 11 takes for granted."""
    if library.name == "tensorrt" and int(library.version.partition(".")[0]) >= 11:
        return 0
    return 1 << int(library.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _not_taken(library: Library, errors: list[Any]) -> PlanError:
    operators = sorted({error.node_operator() for error in errors} - {""})
    if operators:
        said = first_line(errors[0].desc(), 120)
        why = f" ({said})" if " " in said and "&&" not in said else ""
        return PlanError(
            f"{library.label} cannot build the operator {', '.join(operators)} of the bundle's "
            f'graph{why}: update {library.name}, or stay on the CPU (backend = "onnxruntime").',
            "graph",
        )
    why = first_line(errors[0].desc()) if errors else "it is empty"
    return PlanError(
        f"{library.label} cannot read the bundle's graph ({why}): export the bundle again.", "graph"
    )


def _profile(builder: Any, network: Any, options: BuildOptions, shapes: Shapes | None) -> Any:
    profile = builder.create_optimization_profile()
    for at in range(network.num_inputs):
        port = network.get_input(at)
        told = shapes(port.name) if shapes else _of_a_network(port, options)
        profile.set_shape(port.name, *told)
    return profile


def _of_a_network(port: Any, options: BuildOptions) -> Sequence[tuple[int, ...]]:
    shrink = MEMORY_STRIDE if port.name in _AT_A_QUARTER else 1
    return [
        (batch, port.shape[1], side // shrink, side // shrink)
        for batch, side in (
            (1, options.least_side_px),
            (1, options.best_side_px),
            (options.max_batch, options.most_side_px),
        )
    ]


def _monitor(module: Any, watch: BuildWatch) -> Any:
    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.started(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.stepped(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            watch.finished(phase_name)

    return Monitor()


def _failed(library: Library, watch: BuildWatch, error: Exception | None = None) -> PlanError:
    """Say in one sentence why there is no plan."""
    if watch.cancelled:
        return PlanError("The build of the plan was ended before it was done.", "cancelled")
    said = [*library.messages, *([str(error)] if error else [])]
    why = first_line(next((one for one in said if one), "it does not say why"))
    everything = " ".join(said).lower()
    for words, reason, advice in _ADVICE:
        if any(word in everything for word in words):
            return PlanError(f"{library.label} built no plan ({why}): {advice}.", reason)
    return PlanError(
        f"{library.label} built no plan ({why}): update {library.name}, or stay on the CPU "
        '(backend = "onnxruntime").',
        "build",
    )
