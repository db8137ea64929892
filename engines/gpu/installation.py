"""Everything that decides which plan serves: bundle, library, card, and where plans are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines.backends.protocol import Backend, Ports
from engines.bundle import Bundle
from engines.gate import admitted
from engines.gpu.backend import PlanBackend
from engines.gpu.device import open_device
from engines.gpu.plan_runner import PlanRunner
from engines.plans.build import build_plan, graph_of
from engines.plans.card import find_card
from engines.plans.key import BuildOptions, PlanKey, plan_key
from engines.plans.library import Library, find
from engines.plans.prepared import take_prepared
from engines.plans.store import PlanStore

Report = Callable[[str], None]
_OPTIONS = BuildOptions()


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
        key = plan_key(bundle, library, _OPTIONS, card)
        return cls(bundle, library, key, PlanStore(cache, report))

    def plan(self, prepared: Path | None = None, report: Report = lambda _: None) -> bytes | None:
        """Give the plan that was built before, here or in the folder `prepared`, if there is one.

        Raises `PlanError` for a folder that others may write to.
        """
        found = self.store.load(self.key)
        if found is None and prepared is not None:
            found = take_prepared(prepared, self.key, report)
        return found

    def build(self) -> bytes:
        """Build the plan and keep it; takes seconds to minutes; raises `PlanError`."""
        machine = self.key.without_graph()
        timings = self.store.load(machine, "timings") or b""
        built = build_plan(self.library, graph_of(self.bundle, _OPTIONS), _OPTIONS, timings=timings)
        name = f"{self.bundle.name} {self.bundle.version}"
        if built.timings:
            self.store.put(machine, built.timings, kind="timings")
        self.store.put(self.key, built.plan, name)
        return built.plan

    def open(self, plan: bytes, every: int = 1) -> Backend:
        """Load a plan, prove it on the known tilts, and watch it from then on.

        Should the process die of it, the plan is not tried again. Raises `PlanRefusedError`,
        `ParityError`, `GpuMemoryError`, `NoGpuError`, after which the CPU can serve; any other
        `BackendError` means that this process must end.
        """
        device = open_device()
        self.store.begin_trial(self.key)
        try:
            runner = PlanRunner(self.library, plan, device)
            backend = admitted(self.bundle, PlanBackend(runner, _ports(self.bundle)), every)
        except BaseException:
            device.close()
            raise
        finally:  # only a process that died of it leaves the note
            self.store.end_trial(self.key)
        return backend


def _ports(bundle: Bundle) -> Ports:
    return Ports.of(bundle.manifest)
