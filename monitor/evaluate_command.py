"""The arguments of `icewatch evaluate`: one short function for each of its sub-commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

evaluate_app = typer.Typer(
    help="Say what a bundle is worth, in tables, figures and pictures.",
    epilog="Example: icewatch evaluate pictures micrographs/ --out report/",
    rich_markup_mode=None,
)
Bundle = Annotated[str, typer.Option("--model", help="Bundle to evaluate")]
ReportFolder = Annotated[
    Path, typer.Option("--out", help="Folder for report.md, figures.json and pictures")
]
FiguresAsJson = Annotated[
    bool, typer.Option("--json", help="Print the figures as JSON, not the tables")
]
Pictures = Annotated[bool, typer.Option("--pictures/--no-pictures", help="Draw plots and sheets")]


@evaluate_app.command(
    "simulated", epilog="Example: icewatch evaluate simulated data/test --out report/"
)
def evaluate_simulated(
    data: Annotated[list[Path], typer.Argument(help="Folders that `simulate dataset` wrote")],
    out: ReportFolder,
    model: Bundle = "default",
    limit: Annotated[
        int | None, typer.Option(help="Tilts of each data set at most (default: all)", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the electrons and the cameras", min=0)] = 1,
    as_json: FiguresAsJson = False,
    pictures: Pictures = True,
) -> int:
    """Evaluate on simulated tilts, of which the truth is known exactly."""
    from monitor.evaluate import Output
    from monitor.evaluate import evaluate_simulated as evaluate

    return evaluate(data, Output(out, model, as_json, pictures), limit, seed)


@evaluate_app.command(
    "pictures", epilog="Example: icewatch evaluate pictures micrographs/=7.8 --out report/"
)
def evaluate_pictures(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER[=ANGSTROM]...",
            help="Folders of pictures, with their pixel size where the files do not tell, and with "
            "labels in a labels.csv (file,label) or a marks.json",
        ),
    ],
    out: ReportFolder,
    model: Bundle = "default",
    as_json: FiguresAsJson = False,
    pictures: Pictures = True,
) -> int:
    """Evaluate on real pictures with a label for each."""
    from monitor.evaluate import Output
    from monitor.evaluate import evaluate_pictures as evaluate

    return evaluate(folders, Output(out, model, as_json, pictures))


@evaluate_app.command(
    "annotated", epilog="Example: icewatch evaluate annotated tilts/ --cvat export/ --out report/"
)
def evaluate_annotated(
    tilts: Annotated[list[Path], typer.Argument(help="Files or folders with the tilts")],
    out: ReportFolder,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of masks, as `score --masks` writes them, or PNG")
    ] = None,
    cvat: Annotated[
        Path | None, typer.Option(help="Export of CVAT: COCO 1.0 or CVAT for images 1.1")
    ] = None,
    ice_label: Annotated[
        list[str] | None, typer.Option(help="Label of the export that means ice; repeatable")
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option(help="Pixel size in angstrom, where the files do not tell", min=0.01, max=1e4),
    ] = None,
    model: Bundle = "default",
    as_json: FiguresAsJson = False,
    pictures: Pictures = True,
) -> int:
    """Evaluate on tilts that people annotated."""
    from monitor.evaluate import Annotated as Asked
    from monitor.evaluate import Output
    from monitor.evaluate import evaluate_annotated as evaluate

    asked = Asked(tuple(tilts), masks, cvat, tuple(ice_label or ()), pixel_size)
    return evaluate(asked, Output(out, model, as_json, pictures))
