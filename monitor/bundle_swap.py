"""The daemon's part in living with several bundles: which one it starts with, and how it swaps.

What somebody asks for is first proved in a process of its own while the old bundle serves; only
then is it loaded, between two tilts. What fails is refused with its reason: the old one goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engines.bundle import Bundle
from engines.bundle_proof import Proof
from engines.bundle_store import DEFAULT, BundleStore
from engines.errors import BackendError, BundleError
from monitor.bundle_choice import CHOICE, Choice, read_choice, read_serving, write_word
from monitor.bundle_report import BundleReport
from monitor.engine import GPU, LOAD_MAX_S, Engine, ends_at
from monitor.errors import MonitorError
from monitor.messages import StatusMessage
from monitor.settings import Settings
from monitor.shadow import Shadow

if TYPE_CHECKING:
    from engines.gpu.background import BackgroundBuild

logger = logging.getLogger(__name__)

DEATHS_MAX = 2
"""A bundle that the daemon died of so often in a row while it loaded it is not loaded again."""


class BundleSwap:
    """Decides which bundle serves; used by the worker, but `told` and `worded` by any thread."""

    def __init__(
        self, settings: Settings, make_engine: Callable[[str], Engine], shadow: Shadow
    ) -> None:
        """Take what makes an engine of a bundle, which `begin` and `step` open, and the shadow.

        A bundle that the configuration names by its path holds over what anybody asks for.
        """
        self._configured = settings.model.bundle
        self._backend = settings.model.backend
        self._prepared = settings.model.prepared_engines
        self._cache = settings.state.directory / "engines"
        self._make_engine = make_engine
        self._shadow = shadow
        self._shadow_number = 0
        self._store = BundleStore(settings.state.directory)
        self._serving = read_serving(self._store.directory)
        self._stamp: tuple[int, int, int] | None = None
        self._choice = Choice()
        self._asked_for = 0
        """The number of the choice that is being dealt with."""
        self._unreadable = ""
        self._engine: Engine | None = None
        self._opening: Engine | None = None
        self._proof: Proof | None = None
        self._build: BackgroundBuild | None = None
        self._doing = ""
        self.busy_since_s: float | None = None
        """Monotonic start of loading a bundle between two tilts, if that is being done."""

    @property
    def choice(self) -> Choice:
        """What somebody asked for, as last noticed."""
        return self._choice

    @property
    def _serves(self) -> str:
        return self._serving.serves if self._configured == DEFAULT else self._configured

    def begin(self) -> Engine:
        """Open the bundle that served last, or what can be had in its place.

        Raises `BundleError` where not even the shipped or configured one can be used, and
        `BackendError` where this process must end.
        """
        if self._configured != DEFAULT:
            return self._begun(self._opened(self._configured))
        if self._serving.loading:
            self._count_death(self._serving.loading)
        self._notice()
        trouble = ""
        for ref in self._in_order():
            try:
                engine = self._loaded(ref)
            except BundleError as error:
                if ref == DEFAULT:
                    raise
                trouble = trouble or f"{ref} cannot be used any more: {_plain(error)}"
                continue
            if trouble:
                logger.error("%s; %s serves", trouble, ref)
                self._write(serves=ref, lost=f"{trouble}; {ref} serves in its place")
            return self._begun(engine)
        raise AssertionError("the shipped bundle is the last in order")

    def _in_order(self) -> Iterator[str]:
        before = reversed(self._choice.before)
        yield from dict.fromkeys((self._serving.serves, *before, DEFAULT))

    def _count_death(self, ref: str) -> None:
        deaths = self._serving.deaths
        self._write(loading="", deaths={**deaths, ref: deaths.get(ref, 0) + 1})

    def _begun(self, engine: Engine) -> Engine:
        self._engine = engine
        return engine

    @property
    def is_due(self) -> bool:
        """Whether `step` has something to do, so that a long file should pause for it."""
        over = self._proof is not None and self._proof.is_over
        built = self._build is not None and self._build.is_over
        return over or built or self._stamp_now() != self._stamp

    def step(self) -> Engine | None:
        """Between two tilts: give the engine that takes over now, open; None where none does.

        Raises `BackendError` where the graphics card fails in a way that ends this process.
        """
        self._notice()
        self._follow_shadow()
        number = self._choice.number
        if number > self._serving.settled and number != self._asked_for:
            self._asked_for = number
            self._ask_for(self._choice.active)
        elif self._proof is not None and self._proof.is_over:
            why_not, self._proof = self._proof.failure(), None
            if why_not:
                self._refuse(why_not)
            else:
                self._start_build()
        elif self._build is not None and self._build.is_over:
            why_not, self._build = self._build.failure(), None
            if why_not:  # then it serves on the CPU, and says so
                logger.warning("no plan for %s: %s", self._choice.active, why_not)
            self._doing = "loading"
        return self._take_over() if self._doing == "loading" else None

    def _notice(self) -> None:
        """Look whether anybody asked for something."""
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._choice = read_choice(self._store.directory)
        except MonitorError as error:
            self._unreadable = str(error)
            logger.error("%s", error)
            return
        self._unreadable = ""
        if self._choice.number > self._serving.seen:
            self._write(seen=self._choice.number)

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            found = (self._store.directory / CHOICE).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _ask_for(self, ref: str) -> None:
        """Begin to prove what was asked for, in place of what was asked for before."""
        self._drop()
        if self._configured != DEFAULT:
            self._refuse(
                f"model.bundle in the configuration names '{self._configured}', which holds; set "
                'it to "default" and restart icewatch'
            )
        elif ref == self._serving.serves:
            self._settle(ref)
        elif self._serving.deaths.get(ref, 0) >= DEATHS_MAX:
            self._write(deaths={one: n for one, n in self._serving.deaths.items() if one != ref})
            self._refuse(f"icewatch died {DEATHS_MAX} times while it loaded it")
        else:
            self._prove(ref)

    def _prove(self, ref: str) -> None:
        try:
            if ref != DEFAULT:
                self._store.manifest(ref)
            self._proof = Proof(self._store.place(ref), self._backend)
        except BundleError as error:
            self._refuse(_plain(error))
        except OSError as error:
            self._refuse(f"it could not be proved ({error.strerror})")
        else:
            self._doing = "proving"
            logger.info("proving the bundle %s; %s serves meanwhile", ref, self._serving.serves)

    def _start_build(self) -> None:
        """Build the plan for the graphics card too, where the old bundle serves there."""
        self._doing = "loading"
        if self._engine is None or self._engine.backend_name != GPU:
            return
        from engines.gpu.background import BackgroundBuild
        from engines.gpu.installation import Site
        from engines.plans.errors import PlanError

        try:
            bundle = Bundle.load(self._store.place(self._choice.active))
            if Site.find(bundle, self._cache).plan(self._prepared, logger.warning) is None:
                self._build = BackgroundBuild(bundle.directory, self._cache)
                self._doing = "building its plan"
        except (PlanError, BundleError, OSError) as error:
            logger.warning("no plan for %s: %s", self._choice.active, error)

    def _take_over(self) -> Engine | None:
        ref = self._choice.active
        self._doing = ""
        try:
            engine = self._loaded(ref)
        except BundleError as error:
            self._refuse(_plain(error))
            return None
        self._engine = engine
        self._settle(ref)
        logger.info("the bundle %s serves from now on", ref)
        return engine

    def _loaded(self, ref: str) -> Engine:
        """Open an installed bundle, and note it meanwhile: a death shows which one it was.

        Raises `BundleError`, and `BackendError` where this process must end.
        """
        if ref == DEFAULT:
            return self._opened(DEFAULT)
        if self._serving.deaths.get(ref, 0) >= DEATHS_MAX:
            raise BundleError(f"icewatch died {DEATHS_MAX} times while it loaded it.")
        self._store.manifest(ref)
        self._write(loading=ref)
        engine = self._opened(str(self._store.place(ref)))
        left = {one: n for one, n in self._serving.deaths.items() if one != ref}
        self._write(loading="", deaths=left)
        return engine

    def _opened(self, where: str) -> Engine:
        self._opening = engine = self._make_engine(where)
        with self._bounded():
            try:
                engine.open()
            except BackendError as error:
                is_last = self._engine is None and where in (DEFAULT, self._configured)
                if engine.has_gpu or is_last:
                    raise
                raise BundleError(str(error)) from error
        self._opening = None
        return engine

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        """End the process where loading hangs between two tilts; a start has its own bounds."""
        if self._engine is None:
            yield
            return
        self.busy_since_s = time.monotonic()
        try:
            with ends_at(LOAD_MAX_S):
                yield
        finally:
            self.busy_since_s = None

    def _settle(self, ref: str) -> None:
        self._doing = ""
        self._write(serves=ref, settled=self._choice.number, refused="", lost="")

    def _refuse(self, why: str) -> None:
        self._drop()
        ref = self._choice.active
        logger.error("the bundle %s is refused, %s goes on: %s", ref, self._serves, why)
        self._write(settled=self._choice.number, refused=f"{ref}: {why.rstrip('.')}", loading="")

    def _drop(self) -> None:
        for one in (self._proof, self._build):
            if one is not None:
                one.close()
        self._proof = self._build = None
        self._doing = ""

    def _follow_shadow(self) -> None:
        """Let the shadow begin or end that somebody asked for; note one that failed."""
        choice, serving, shadow = self._choice, self._serving, self._shadow
        if choice.shadow_number == self._shadow_number:
            if shadow.failed and not serving.shadow_off:
                self._write(shadow_off=f"{choice.shadow}: {shadow.failed}")
            return
        self._shadow_number = choice.shadow_number
        is_old = choice.shadow_number == serving.shadow_settled
        off = serving.shadow_off if is_old else ""
        shadow.end()
        if choice.shadow and not off:
            try:
                if choice.shadow != DEFAULT:
                    self._store.manifest(choice.shadow)
                shadow.begin(choice.shadow, self._store.place(choice.shadow))
            except BundleError as error:
                off = f"{choice.shadow}: {_plain(error)}"
        self._write(shadow_settled=choice.shadow_number, shadow_off=off)

    def _write(self, **changes: Any) -> None:
        self._serving = replace(self._serving, **changes)
        if not self._store.directory.is_dir():
            return  # nobody ever asked for anything
        try:
            write_word(self._store.directory, self._serving)
        except OSError as error:
            logger.warning("which bundle serves is not kept (%s)", error.strerror)

    def leave(self) -> None:
        """Say, from another thread, that an orderly stop comes between: nothing has failed."""
        for engine in (self._engine, self._opening):
            if engine is not None:
                engine.leave()
        if self._opening is not None and self._serving.loading:
            self._write(loading="")

    def close(self) -> None:
        """End what is being proved or built, and the shadow."""
        self._drop()
        self._shadow.end()

    def worded(self, beat: StatusMessage) -> StatusMessage:
        """Say in a heartbeat which bundle serves, and what a person should know of it."""
        report = self._report()
        return report.worded(beat) if report else beat

    def told(self, status: dict[str, Any]) -> dict[str, Any]:
        """Add to a status which bundle serves, and what becomes of another one."""
        report = self._report()
        return report.told(status) if report else status

    def _report(self) -> BundleReport | None:
        if self._engine is None:
            return None
        return BundleReport(
            name=self._engine.bundle_name,
            version=self._engine.bundle_version,
            serves=self._serves,
            doing=self._doing,
            choice=self._choice,
            serving=self._serving,
            unreadable=self._unreadable,
            shadow=self._shadow.told(),
        )


def _plain(error: Exception) -> str:
    return str(error).rstrip(".")
