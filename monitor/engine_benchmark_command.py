"""`icewatch engine benchmark`: every backend that is present on the same tilts."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from engines.benchmarking.race import Course
    from engines.benchmarking.report import Report

EPILOG = "Example: icewatch engine benchmark --tilts 20 --out report/"
MAX_BATCH = 8
_DIFFERENT_TILTS = 6
_ROOM_TO_SPARE = 1.1


def benchmark(
    bundle: Annotated[str, typer.Option(help="Bundle to run: a folder, or 'default'")] = "default",
    backend: Annotated[
        list[str] | None,
        typer.Option(help="Backend to run; repeatable (default: every one that is present)"),
    ] = None,
    tilts: Annotated[int, typer.Option(help="Rounds, one tilt each", min=1, max=10_000)] = 20,
    size_px: Annotated[
        int, typer.Option("--size-px", help="Side of a tilt in pixels", min=64, max=16384)
    ] = 4096,
    pixel_size: Annotated[
        float, typer.Option(help="Pixel size of the tilts in angstrom", min=0.1, max=100.0)
    ] = 1.97,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            help="Size of batches to run; repeatable (default: 1, 2, 4, 8)", min=1, max=MAX_BATCH
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(help="Threads of each backend (default: what each takes)", min=0, max=256)
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for benchmark.md, benchmark.json, benchmark.png")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures, not tables")] = False,
) -> int:
    """Compare the backends on simulated tilts: speed, memory, agreement with ONNX Runtime."""
    from engines.benchmarking.race import Course
    from monitor.writable import refuse_unwritable

    names = _names(backend or ())
    if out is not None:
        refuse_unwritable("--out", out)
    network_px = _network_px(bundle, size_px, pixel_size)
    sizes = tuple(sorted(set(batch or (1, 2, 4, 8))))
    with tempfile.TemporaryDirectory(prefix="icewatch-benchmark-") as folder:
        different = min(tilts, _DIFFERENT_TILTS)
        course = Course(bundle, Path(folder), different, tilts, sizes, size_px, pixel_size, threads)
        report = _run(course, names, network_px)
    _show(report, out, as_json=as_json)
    return 0 if any(row.why_not is None for row in report.rows) else 1


def _names(asked: Sequence[str]) -> list[str]:
    """Say who is to take part; raises `ConfigError` for a name that nobody has."""
    from engines.benchmarking.contenders import REFERENCE, names
    from monitor.errors import ConfigError

    known = names()
    for name in asked:
        if name not in known:
            raise ConfigError(f"--backend {name} is not known; name one of {', '.join(known)}")
    # Whoever runs is compared with the reference.
    return [name for name in known if not asked or name in asked or name == REFERENCE]


def _network_px(bundle: str, size_px: int, pixel_size_angstrom: float) -> int:
    """Say how many pixels the network sees along a side; raises `ConfigError`."""
    from engines.bundle import Bundle
    from engines.errors import BundleError
    from engines.preprocess import working_shape
    from engines.unmeasured import refusal
    from monitor.errors import ConfigError

    try:
        target = Bundle.load(bundle).manifest.pixel_size_angstrom
    except BundleError as error:
        raise ConfigError(f"--bundle {bundle}: {error}") from error
    shape = (size_px, size_px)
    why_not = refusal(shape, pixel_size_angstrom, target)
    if why_not is not None:
        raise ConfigError(
            f"tilts of --size-px {size_px} at --pixel-size {pixel_size_angstrom:g} cannot be "
            f"measured ({why_not.value}); use 4096 and 1.97"
        )
    return working_shape(shape, pixel_size_angstrom, target)[0]


def _run(course: Course, names: Sequence[str], network_px: int) -> Report:
    """Make the tilts, let all contenders run, with a bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from engines.benchmarking.contenders import why_absent
    from engines.benchmarking.figures import rows_of
    from engines.benchmarking.race import race, where_and_when
    from engines.benchmarking.report import Report

    running = sum(why_absent(name) is None for name in names)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("making tilts", total=course.tilts + running * course.steps)
        _make_tilts(course, lambda: progress.advance(task))
        about = {
            **where_and_when(),
            "bundle": course.bundle,
            "rounds": course.rounds,
            "size_px": course.size_px,
            "pixel_size_angstrom": course.pixel_size_angstrom,
            "network_px": network_px,
            "batches": course.batches,
        }

        def tell(what: str) -> None:
            progress.update(task, description=what, advance=1)

        laps = race(course, names, tell)
        progress.update(task, description="done", completed=progress.tasks[task].total)
    return Report(about, tuple(rows_of(laps)))


def _make_tilts(course: Course, made: Callable[[], None]) -> None:
    """Expose one recorded tilt of each lamella of the demo, icy ones among them."""
    from engines.benchmarking.tilts import expose
    from monitor.demo.session import load_session
    from monitor.errors import MonitorError

    needed = int(course.tilts * course.size_px**2 * 2 * _ROOM_TO_SPARE)
    if shutil.disk_usage(course.folder).free < needed:
        raise MonitorError(
            f"'{course.folder}' has no room for {needed / 1e6:.0f} MB of tilts; set TMPDIR to a "
            "folder that has, or lower --size-px"
        )
    session = load_session()
    for number in range(course.tilts):
        recorded = session.lamellae[(number + 1) % len(session.lamellae)].tilts[0]
        image = expose(
            recorded.expected,
            session.pixel_size_angstrom,
            course.size_px,
            course.pixel_size_angstrom,
            number,
        )
        image.tofile(course.folder / f"{number}.raw")
        made()


def _show(report: Report, out: Path | None, *, as_json: bool) -> None:
    from engines.learning.evaluation_tables import as_rich
    from monitor.errors import MonitorError
    from monitor.screen import console

    draws = out is not None and find_spec("matplotlib") is not None
    if out is not None:
        try:
            report.write(out)
            if draws:
                report.draw(out)
        except OSError as error:
            raise MonitorError(f"{error.filename or out}: {error.strerror}") from error
        if not draws:
            sys.stderr.write(
                "icewatch: nothing is drawn without matplotlib: pip install 'icewatch[train]'\n"
            )
    if as_json:
        sys.stdout.write(json.dumps(report.content, allow_nan=False) + "\n")
        return
    screen = console()
    for table in report.tables():
        screen.print(as_rich(table))
    if out is not None:
        screen.print(f"benchmark.md, benchmark.json{', benchmark.png' * draws} are in {out}")
