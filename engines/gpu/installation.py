"""Everything that decides which plan serves: bundle, library, card, and where plans are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.backends.protocol import Backend, Ports
from engines.bundle import Bundle
from engines.gate import admitted
from engines.gpu.backend import OrOnTheCpu, PlanBackend
from engines.gpu.device import open_device
from engines.gpu.plan_runner import PlanRefusedError, PlanRunner
from engines.gpu.resampler import GRAPHS, GpuResampler, graph_path, shapes_of
from engines.plans.build import build_plan, graph_of
from engines.plans.card import find_card
from engines.plans.key import PlanKey, options_for, plan_key
from engines.plans.library import Library, find
from engines.plans.prepared import take_prepared
from engines.plans.store import PlanStore

Report = Callable[[str], None]
_MOST_PLANS = 12
"""Two networks with all that averages pixels for them."""


@dataclass(frozen=True, slots=True)
class Site:
    """One bundle on the GPU of this machine."""

    bundle: Bundle
    library: Library
    key: PlanKey
    store: PlanStore

    @classmethod
    def find(cls, bundle: Bundle, cache: Path, report: Report = lambda _: None) -> Site:
        """Look for a library and a card; raises `PlanError` where either is missing.

        `cache` is the private folder of plans; `report` hears in one sentence of each that was
        thrown away.
        """
        card = find_card()  # first: the library is large, and of no use without
        library = find()
        key = plan_key(bundle, library, options_for(library, card), card)
        return cls(bundle, library, key, PlanStore(cache, report, most_plans=_MOST_PLANS))

    def plan(self, prepared: Path | None = None, report: Report = lambda _: None) -> bytes | None:
        """Give the plan that was built before, here or in the folder `prepared`, if there is one.

        Raises `PlanError` for a folder that others may write to.
        """
        if self.store.died_of(self.key):
            prepared = None
        found = self.store.load(self.key)
        if found is None and prepared is not None:
            found = take_prepared(prepared, self.key, report)
        return found

    def build(self) -> bytes:
        """Build the plans and keep them; takes seconds to minutes; raises `PlanError`.

        Gives that of the network; those that average pixels are small.
        """
        machine, options = self.key.without_graph(), self.key.options
        timings = self.store.load(machine, "timings") or b""
        for kind in GRAPHS:
            graph = graph_path(kind).read_bytes()
            average = build_plan(self.library, graph, options, shapes=partial(shapes_of, kind))
            self.store.put(self._key_of(graph), average.plan, f"area average of {kind}")
        built = build_plan(self.library, graph_of(self.bundle, options), options, timings=timings)
        if built.timings:
            self.store.put(machine, built.timings, kind="timings")
        self.store.put(self.key, built.plan, f"{self.bundle.name} {self.bundle.version}")
        return built.plan

    def resampler(self) -> GpuResampler | None:
        """Average raw pixels on the GPU too, proved; None where there is no plan for that.

        Raises `BackendError` where the GPU fails.
        """
        keys = {kind: self._key_of(graph_path(kind).read_bytes()) for kind in GRAPHS}
        plans = {kind: plan for kind, key in keys.items() if (plan := self.store.load(key))}
        if len(plans) < len(keys):
            return None
        found = GpuResampler(lambda kind: PlanRunner(self.library, plans[kind], open_device()))
        try:
            found.prove()
        except PlanRefusedError as error:
            found.close()
            for key in keys.values():
                self.store.discard(key, str(error))
            return None
        return found

    def _key_of(self, graph: bytes) -> PlanKey:
        """Name a plan of another graph, all else being the same."""
        return self.key.model_copy(update={"graph_sha256": hashlib.sha256(graph).hexdigest()})

    def open(self, plan: bytes, every: int = 1) -> Backend:
        """Load a plan, prove it on the known tilts, and watch it from then on.

        Should the process die of it, the plan is not tried again. Raises `PlanRefusedError`,
        `ParityError`, `GpuMemoryError`, `NoGpuError`, after which the CPU can serve; any other
        `BackendError` means that this process must end.
        """
        device = open_device()
        most = self.key.options.most_side_px
        with ExitStack() as always, ExitStack() as on_failure:
            on_failure.callback(device.close)
            self.store.begin_trial(self.key)
            # only a process that died of it leaves the note
            always.callback(self.store.end_trial, self.key)
            runner = PlanRunner(self.library, plan, device)
            backend = PlanBackend(runner, Ports.of(self.bundle.manifest), most)
            watched = admitted(self.bundle, backend, every)
            on_failure.pop_all()
        return OrOnTheCpu(watched, most, partial(OnnxRuntimeSettings().build, self.bundle))
