"""`icewatch annotate export`: the tilts most worth labelling, as pictures with a first drawing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from engines.annotation import (
    LABELS,
    AnnotatedImage,
    Polygon,
    outlines_of,
    picture_of,
    png_of,
)
from engines.bundle_store import DEFAULT
from engines.errors import EngineError
from engines.segmenter import Segmenter
from monitor.annotate.candidates import Candidate
from monitor.annotate.folder import FORMATS, ExportFolder
from monitor.annotate.magnification import most_common
from monitor.annotate.past import candidates_of_session
from monitor.annotate.places import refuse_below_tilts, refuse_used
from monitor.annotate.progress import progress
from monitor.annotate.proposals import LIMIT_PERCENT, Proposal, propose
from monitor.annotate.reading import FromFiles, Pixels, ice_of, load_network
from monitor.bundle_choice import serving_bundle
from monitor.errors import ConfigError, MonitorError, SourceError
from monitor.score_files import complain, refuse_missing
from monitor.screen import console, interval_text, percent_text, plain
from monitor.settings import AcquisitionSettings, parse

ICE = LABELS[0].name
Done = list[tuple[Proposal, AnnotatedImage]]
"""What was chosen, and its picture with what the network took for ice."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for on the command line."""

    out: Path
    tilts: tuple[Path, ...] = ()
    config: Path | None = None
    state: Path | None = None
    session: str | None = None
    bundle: str | None = None
    count: int = 5
    format: str = "coco"
    every: bool = False
    """Whether all tilts are exported, not only those most worth it."""
    neighbours: bool = False
    packed: bool = False
    pixel_size_angstrom: float | None = None


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where candidates come from."""

    journalled: Callable[[], list[Candidate]] | None
    """What a daemon read of them; None where that is still to be done."""
    places: tuple[Path, ...]
    """Files and folders with tilts, below which nothing is written."""
    acquisition: AcquisitionSettings | None
    bundle: str
    limit_percent: float


def export(request: Request) -> int:
    """Write the folder to take to CVAT and print what is in it; returns 0.

    Raises `ConfigError` for what cannot be meant, `MonitorError` where nothing can be exported.
    """
    if request.format not in FORMATS:
        raise ConfigError(f"--format {request.format}: is not known; choose {' or '.join(FORMATS)}")
    origin = _origin(request)
    refuse_below_tilts("OUT", request.out, origin.places)
    refuse_used("OUT", request.out)
    with ExportFolder(request.out, request.format) as folder:
        done, count = _filled(folder, request, origin)
        folder.finish(done, packed=request.packed)
    _say(request, [proposal for proposal, _ in done], count)
    return 0


def _filled(folder: ExportFolder, request: Request, origin: _Origin) -> tuple[Done, int]:
    """Write the pictures; gives them with their first drawings, and how many tilts there were."""
    journalled = origin.journalled() if origin.journalled else None
    segmenter = load_network(origin.bundle)
    try:
        candidates = _measured(request, segmenter) if journalled is None else journalled
        if not candidates:
            raise MonitorError("no tilt could be read; see the lines above")
        done = _Exporting(segmenter, Pixels(origin.acquisition), folder).all_of(
            lambda left: _chosen(left, request, origin.limit_percent),
            _of_one_magnification(candidates),
        )
    finally:
        segmenter.close()
    if not done:
        raise MonitorError(_why_none(candidates))
    return done, len(candidates)


def _origin(request: Request) -> _Origin:
    """See where tilts are to come from; raises `ConfigError` where that is not one place."""
    if request.config is not None:
        if request.tilts or request.state:
            raise ConfigError(
                "--config tells where the tilts and their journal lie; name neither TILTS nor "
                "--state as well"
            )
        settings = parse(request.config)
        acquisition = settings.acquisition
        refuse_missing(acquisition.directory)
        return _Origin(
            lambda: candidates_of_session(
                settings.state.directory, acquisition.directory, request.session
            ),
            (acquisition.directory,),
            acquisition,
            request.bundle or serving_bundle(settings.state.directory, settings.model.bundle),
            settings.verdict.skip_above_ice_percent,
        )
    for path in request.tilts:
        refuse_missing(path)
    state = request.state
    if state is not None:
        if len(request.tilts) != 1 or not request.tilts[0].is_dir():
            raise ConfigError(
                "--state needs one folder as TILTS: the acquisition.directory of that daemon; or "
                "name its configuration with --config"
            )
        (root,) = request.tilts
        return _Origin(
            lambda: candidates_of_session(state, root, request.session),
            (root,),
            None,
            request.bundle or serving_bundle(state),
            LIMIT_PERCENT,
        )
    if request.session is not None:
        raise ConfigError(
            "--session is looked up in the journal of a daemon; name its configuration with "
            "--config"
        )
    if not request.tilts:
        raise ConfigError(
            "name TILTS (files or folders), or the configuration of a daemon with --config"
        )
    return _Origin(None, request.tilts, None, request.bundle or DEFAULT, LIMIT_PERCENT)


def _measured(request: Request, segmenter: Segmenter) -> list[Candidate]:
    """Measure all tilts of the command line."""
    files = FromFiles(request.tilts, request.pixel_size_angstrom)
    with progress() as bar:
        return list(bar.track(files.measured(segmenter), description="tilts measured"))


def _of_one_magnification(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Keep the tilts of the magnification that most have, and those that do not tell theirs."""
    sizes = [one.tilt.pixel_size_angstrom for one in candidates]
    span = most_common(size for size in sizes if size)
    if span is None:
        return list(candidates)
    kept = [
        one
        for one, size in zip(candidates, sizes, strict=True)
        if not size or span[0] <= size <= span[1]
    ]
    if len(kept) < len(candidates):
        sys.stderr.write(
            f"icewatch: {len(candidates) - len(kept)} of {len(candidates)} tilts have another "
            f"pixel size than {span[0]:g} Å and are left out; export each magnification by itself\n"
        )
    return kept


def _chosen(left: Sequence[Candidate], request: Request, limit_percent: float) -> list[Proposal]:
    if not request.every:
        return propose(left, request.count, limit_percent, neighbours=request.neighbours)
    by_name: dict[str, Candidate] = {}
    for one in left:
        by_name.setdefault(one.name, one)
    return [Proposal(one, "all were asked for") for one in by_name.values()]


def _why_none(candidates: Sequence[Candidate]) -> str:
    flags = {flag for one in candidates for flag in one.reading.flags}
    if all(one.reading.percent is None for one in candidates):
        why = f" ({', '.join(sorted(flags))})" if flags else ""
        return (
            f"none of {len(candidates)} tilts could be measured{why}; --all exports them all the "
            "same"
        )
    return f"none of {len(candidates)} tilts could be read; see the lines above"


class _Exporting:
    """Draws what was proposed; what cannot be read makes room for the next best."""

    def __init__(self, segmenter: Segmenter, pixels: Pixels, folder: ExportFolder) -> None:
        self._segmenter = segmenter
        self._pixels = pixels
        self._folder = folder
        self._drawn: dict[str, AnnotatedImage] = {}

    def all_of(
        self, choose: Callable[[list[Candidate]], list[Proposal]], candidates: Sequence[Candidate]
    ) -> Done:
        """Draw what is chosen of the candidates until all of it could be drawn."""
        left = list(candidates)
        while True:
            chosen = choose(left)
            lost = [one.candidate for one in chosen if not self._draw(one.candidate)]
            if not lost:
                break
            files = {one.file for one in lost if not one.file.is_file()}
            left = [one for one in left if one not in lost and one.file not in files]
        names = {one.candidate.name for one in chosen}
        for name in self._drawn.keys() - names:
            self._folder.drop(name)
        return [(one, self._drawn[one.candidate.name]) for one in chosen]

    def _draw(self, one: Candidate) -> bool:
        """Draw a tilt; False where that cannot be, which is told on standard error."""
        if one.name in self._drawn:
            return True
        try:
            one.name.encode()
            image = self._pixels.of(one)
        except (SourceError, EngineError) as error:
            complain(one.file, str(error))
            return False
        except UnicodeEncodeError:
            complain(one.file, "CVAT cannot take a file of this name")
            return False
        except OSError as error:
            complain(one.file, f"cannot be read: {error.strerror}")
            return False
        ice, valid = ice_of(self._segmenter, one, image)
        picture = picture_of(image, None if valid is None else valid.mask)
        rows, columns = picture.shape
        shapes: tuple[Polygon, ...] = ()
        if ice is not None:
            scale = (columns / ice.shape[1], rows / ice.shape[0])
            shapes = tuple(Polygon(ICE, (ring,)) for ring in outlines_of(ice.mask, scale))
        self._folder.add(one.name, png_of(picture))
        self._drawn[one.name] = AnnotatedImage(one.name, columns, rows, shapes)
        return True


def _why_fewer(request: Request, count: int) -> str:
    others = "were not measured, have the name of one of these"
    if request.neighbours:
        return f"Only {count} of {request.count}: the others {others}, or cannot be read."
    return (
        f"Only {count} of {request.count}: the others {others}, or are their neighbours in a "
        "series (--neighbours takes those too)."
    )


def _say(request: Request, proposals: Sequence[Proposal], tilts: int) -> None:
    screen = console()
    table = Table(box=None, pad_edge=False)
    for heading in ("picture", "lamella", "angle", "ice", "90 % interval", "why"):
        table.add_column(heading, justify="right" if heading in ("angle", "ice") else "left")
    for proposal in proposals:
        tilt, reading = proposal.candidate.tilt, proposal.candidate.reading
        table.add_row(
            Text(plain(proposal.candidate.name)),
            Text(plain(tilt.lamella)),
            "-" if tilt.angle_deg is None else f"{tilt.angle_deg:+.1f}°",
            percent_text(reading.percent),
            interval_text(reading.percent_low, reading.percent_high),
            Text(proposal.reason),
        )
    screen.print(table)
    if len(proposals) < request.count and not request.every:
        screen.print(f"\n{_why_fewer(request, len(proposals))}", markup=False, soft_wrap=True)
    screen.print(
        f"\n{len(proposals)} of {tilts} tilts are in {request.out}; README.txt there "
        "says what to do in CVAT.",
        markup=False,
        soft_wrap=True,
    )
