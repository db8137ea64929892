"""The arguments of `icewatch annotate`: one short function for each of its sub-commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

annotate_app = typer.Typer(
    help="Have people label tilts in CVAT, and check what they drew.",
    epilog="Example: icewatch annotate export OUT --config /etc/icewatch/krios1.toml",
    rich_markup_mode=None,
)


@annotate_app.command(
    "export",
    epilog="Example: icewatch annotate export OUT --config /etc/icewatch/krios1.toml\n\n"
    "Example: icewatch annotate export OUT tilts/ --count 10 --format cvat --zip",
)
def export_tilts(
    out: Annotated[Path, typer.Argument(help="Folder to write: a new one, or an empty one")],
    tilts: Annotated[
        list[Path] | None, typer.Argument(help="Files or folders with tilts (without a daemon)")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Of a daemon whose journal tells of the tilts"),
    ] = None,
    session: Annotated[
        str | None, typer.Option(help="Session of that daemon (default: the newest)")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="state.directory of a daemon, with its acquisition.directory as TILTS"),
    ] = None,
    count: Annotated[int, typer.Option(help="How many tilts", min=1, max=50)] = 5,
    every: Annotated[
        bool, typer.Option("--all", help="All tilts, not those most worth it")
    ] = False,
    neighbours: Annotated[
        bool, typer.Option("--neighbours", help="Also neighbouring tilts of one series")
    ] = False,
    format_name: Annotated[
        str, typer.Option("--format", help="coco (COCO 1.0) or cvat (CVAT for images 1.1)")
    ] = "coco",
    packed: Annotated[
        bool, typer.Option("--zip", help="Write dataset.zip as well, to import into a project")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="Bundle to draw ice with first (default: that of the daemon)"),
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option(help="Pixel size in angstrom, where the files do not tell", min=0.01, max=1e4),
    ] = None,
) -> int:
    """Choose the tilts most worth labelling, and write pictures of them for CVAT."""
    from monitor.annotate.export import Request, export

    return export(
        Request(
            out,
            tuple(tilts or ()),
            config,
            state,
            session,
            model,
            count,
            format_name,
            every,
            neighbours,
            packed,
            pixel_size,
        )
    )


@annotate_app.command(
    "import",
    epilog="Example: icewatch annotate import export.zip --tilts tilts/ --preview preview/",
)
def import_export(
    export: Annotated[
        Path, typer.Argument(help="What CVAT exported: ZIP file, folder or annotation file")
    ],
    tilts: Annotated[
        list[Path] | None,
        typer.Option(help="File or folder with the tilts that were labelled; repeatable"),
    ] = None,
    preview: Annotated[
        Path | None, typer.Option(help="Draw the annotations over their pictures into this folder")
    ] = None,
    ice_label: Annotated[
        list[str] | None, typer.Option(help="Label of the export that means ice; repeatable")
    ] = None,
) -> int:
    """Check what was drawn in CVAT, picture by picture, before a network learns from it."""
    from monitor.annotate.check import Request, check

    return check(Request(export, tuple(tilts or ()), preview, tuple(ice_label or ())))
