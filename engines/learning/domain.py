"""Fit the out-of-domain monitor of a bundle, and put it there.

python -m engines.learning.domain --bundle DIR --in-domain DATA... --foreign DATA...
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.backends.protocol import Backend
from engines.bundle import Bundle, Manifest
from engines.domain_file import DOMAIN, MAX_BYTES, packed
from engines.domain_monitor import DomainMonitor
from engines.learning.bundle_files import add_file
from engines.learning.domain_data import Collection, Sample, Seen, collect, pictures_in
from engines.learning.domain_fit import fit_monitor


def sample_of(
    manifest: Manifest,
    backend: Backend,
    inside: Sequence[Path],
    foreign: Sequence[Path],
    wanted: Collection,
) -> Sample:
    """Look at the pictures of data sets in domain, and turned, and of foreign ones."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    turned = Collection(wanted.seed, wanted.series, wanted.tilts, turn=True)
    plan = [*((data, turned) for data in inside), *((data, wanted) for data in foreign)]

    def seen() -> Iterator[Seen]:
        with Progress(*columns, TimeRemainingColumn()) as progress:
            whole = sum(pictures_in(*one) for one in plan)
            task = progress.add_task("looking at series", total=whole)
            for data, collection in plan:
                for found in collect(manifest, backend, data, collection):
                    yield from found
                    progress.advance(task)

    return Sample.of(seen())


def add_to_bundle(directory: Path, monitor: DomainMonitor) -> int:
    """Write a monitor into a bundle: its bytes.

    Raises ValueError for a monitor that is too large.
    """
    content = packed(monitor)
    if len(content) > MAX_BYTES:
        raise ValueError(f"the monitor has {len(content)} bytes, more than {MAX_BYTES}.")
    add_file(directory, DOMAIN, content)
    return len(content)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m engines.learning.domain", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--in-domain", type=Path, nargs="+", required=True)
    parser.add_argument("--foreign", type=Path, nargs="+", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--series", type=int, default=1200, help="of each data set, at most")
    parser.add_argument("--tilts", type=int, default=1, help="of each series, at most")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    given = _parse(arguments)
    cv2.setNumThreads(1)
    bundle = Bundle.load(given.bundle)
    backend = OnnxRuntimeSettings(threads=1).build(bundle)
    wanted = Collection(given.seed, given.series, given.tilts)
    sample = sample_of(bundle.manifest, backend, given.in_domain, given.foreign, wanted)
    backend.close()
    monitor = fit_monitor(sample, bundle.manifest.feature_sizes)
    size = add_to_bundle(given.bundle, monitor)
    Console().print(f"{given.bundle / DOMAIN} written from {len(sample)} pictures, {size} bytes")


if __name__ == "__main__":
    main()
