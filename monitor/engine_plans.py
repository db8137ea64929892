"""What `icewatch engine build`, `list` and `verify` do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from engines.bundle import Bundle
from engines.errors import BundleError
from engines.plans.build import BuildWatch, Built, build_plan, graph_of
from engines.plans.card import find_card
from engines.plans.errors import PlanError
from engines.plans.key import GRAPHS, BuildOptions, PlanKey, plan_key
from engines.plans.library import NAMES, Library, find
from engines.plans.prepared import keep_prepared, prepare, survey_prepared, take_timings
from engines.plans.shelf import Found
from engines.plans.store import PlanStore
from monitor.errors import ConfigError, MonitorError
from monitor.screen import console, plain
from monitor.settings import load

CACHE = "engines"
"""Folder of the daemon's cache in the state directory."""

_TICK_S = 0.1
_AGES = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))


@dataclass(frozen=True, slots=True)
class Order:
    """What to build, of what and for whom, as it was asked for."""

    out: Path
    bundle: str = "default"
    library: str | None = None
    compute_capabilities: tuple[str, ...] = ()
    precision: str = "fp16"


def build_ahead(order: Order) -> int:
    """Build a plan into a folder; raises `ConfigError` and `MonitorError`."""
    if order.precision not in GRAPHS:
        raise ConfigError(f"--precision {plain(order.precision)}: name fp16 or fp32")
    if order.library not in (None, *NAMES):
        raise ConfigError(f"--library {plain(order.library or '')}: name {' or '.join(NAMES)}")
    bundle = _bundle(order.bundle)
    with _as_command_errors():
        library = find(order.library)
        for named in order.compute_capabilities:
            library.capability(named)
        options = BuildOptions(
            precision=order.precision,
            compute_capabilities=order.compute_capabilities,
        )
        prepare(order.out)
        card = None if library.capabilities else find_card()
        key = plan_key(bundle, library, options, card)
        built = _build(library, graph_of(bundle, options), key, order.out)
        label = f"{bundle.name} {bundle.version}"
        path = keep_prepared(order.out, key, built.plan, label)
        if built.timings:
            keep_prepared(order.out, key.without_graph(), built.timings, "", "timings")
    typer.echo(
        f"built {plain(str(path))}\n{plain(label)}, {options.precision}, {library.label}, for "
        f"{_cards(key)}; {_size(len(built.plan))} in {built.seconds:.1f} s"
    )
    return 0


def list_plans(directory: Path | None, config: Path | None) -> int:
    """Print a table of the plans in a folder; raises `ConfigError` and `MonitorError`."""
    where, found = _survey(directory, config)
    if not found:
        typer.echo(f"no plans in '{plain(str(where))}'")
        return 0
    table = Table(box=None, pad_edge=False)
    for heading in ("plan", "bundle", "library", "for", "size", "age", "state"):
        table.add_column(heading, justify="right" if heading in ("size", "age") else "left")
    now_s = time.time()
    for one in found:
        table.add_row(*_row(one, now_s))
    console().print(table)
    return 0


def verify_plans(directory: Path | None, config: Path | None, bundle: str | None) -> int:
    """Print a line for each plan; 0 where there is one and all are sound, else 1.

    Raises `ConfigError` and `MonitorError`.
    """
    graphs = None if bundle is None else _graphs(_bundle(bundle))
    where, found = _survey(directory, config)
    if graphs is not None:
        found = [_of_bundle(one, graphs, bundle or "") for one in found]
    for one in found:
        typer.echo(f"{plain(one.name)}: {plain(one.fault or 'sound')}")
    if not any(one.name.endswith(".plan") for one in found):
        typer.echo(f"no plans in '{plain(str(where))}'")
        return 1
    return 1 if any(one.fault for one in found) else 0


def _build(library: Library, graph: bytes, key: PlanKey, out: Path) -> Built:
    """Build in another thread and draw how far it is; Ctrl-C ends the build first."""
    timings = take_timings(out, key) if library.keeps_timings else b""
    watch = BuildWatch()
    with ThreadPoolExecutor(1) as thread, _progress() as progress:
        task = progress.add_task(f"building with {library.label}", total=1.0, phase="")
        work: Future[Built] = thread.submit(
            build_plan, library, graph, key.options, timings=timings, watch=watch
        )
        try:
            while not work.done():
                progress.update(task, completed=watch.fraction, phase=watch.phase)
                time.sleep(_TICK_S)
        except KeyboardInterrupt:
            watch.cancel()
            raise
    return work.result()


def _progress() -> Progress:
    screen = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[phase]}", style="dim"),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )


def _survey(directory: Path | None, config: Path | None) -> tuple[Path, list[Found]]:
    if (directory is None) == (config is None):
        raise ConfigError("name either a folder of plans or --config of the daemon")
    if config is not None:
        directory = load(config).state.directory / CACHE
    assert directory is not None
    store = PlanStore(directory)
    is_cache = config is not None or store.secret_file.exists()
    try:
        with _as_command_errors():
            return directory, store.survey() if is_cache else survey_prepared(directory)
    except FileNotFoundError as error:
        if config is not None:
            return directory, []
        raise ConfigError(f"'{directory}' is not there; name a folder of plans") from error


def _bundle(named: str) -> Bundle:
    try:
        return Bundle.load(named)
    except BundleError as error:
        raise ConfigError(f"--bundle {plain(named)}: {error}") from error


@contextmanager
def _as_command_errors() -> Iterator[None]:
    try:
        yield
    except BundleError as error:
        raise ConfigError(str(error)) from error
    except PlanError as error:
        kind = ConfigError if error.reason == "capability" else MonitorError
        raise kind(str(error)) from error


def _graphs(bundle: Bundle) -> set[str]:
    files = bundle.manifest.files
    return {files[name].sha256 for name in GRAPHS.values() if name in files}


def _of_bundle(found: Found, graphs: set[str], bundle: str) -> Found:
    record = found.record
    if found.fault or record is None or record.kind != "plan" or record.key.graph_sha256 in graphs:
        return found
    return replace(found, fault=f"made of another bundle ({record.bundle}) than {bundle}")


def _row(found: Found, now_s: float) -> list[str | Text]:
    state = Text(plain(found.fault) or "sound", style="red" if found.fault else "green")
    size, age = _size(found.size_bytes), _age(now_s - found.changed_s)
    short = plain(found.name[:8] + found.name[32:] if len(found.name) > 32 else found.name)
    record = found.record
    if record is None:
        return [Text(short), "?", "?", "?", size, age, state]
    key = record.key
    made_of = f"{record.bundle} {key.options.precision}" if record.kind == "plan" else ""
    library = f"{key.library} {key.library_version}"
    return [Text(short), Text(plain(made_of)), Text(library), Text(_cards(key)), size, age, state]


def _cards(key: PlanKey) -> str:
    if key.card is not None:
        return key.card.name
    return ", ".join(key.options.compute_capabilities) or "8.0 and later"


def _size(size_bytes: int) -> str:
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1e3:.0f} kB"
    return f"{size_bytes / 1e6:.1f} MB"


def _age(age_s: float) -> str:
    unit, length_s = next((one for one in _AGES if age_s >= one[1]), _AGES[-1])
    return f"{max(0.0, age_s) // length_s:.0f} {unit}"
