"""The arguments of `icewatch engine`: one short function for each of its sub-commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monitor.engine_benchmark_command import EPILOG, benchmark

engine_app = typer.Typer(
    help="Build and check what the network runs as on a graphics card.",
    epilog="Example: icewatch engine build --compute-capability 8.6 --out plans/",
    rich_markup_mode=None,
)
Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Look into the daemon's own cache: TOML configuration"),
]
Library = Annotated[
    str | None, typer.Option(help="tensorrt or tensorrt_rtx (default: the one that is there)")
]


@engine_app.command(
    "build",
    epilog="Example: icewatch engine build --library tensorrt_rtx --compute-capability 8.6 "
    "--compute-capability 8.9 --out plans/",
)
def build(
    out: Annotated[Path, typer.Option(help="Folder for the plan and its record")] = Path("plans"),
    bundle: Annotated[str, typer.Option(help="Bundle to build of")] = "default",
    library: Library = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            help="Card to build for, as 8.6; repeatable; tensorrt_rtx alone (default: every card "
            "from 8.0 on; tensorrt: the card in this machine)"
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp16 or fp32")] = "fp16",
) -> int:
    """Build the plan of a bundle ahead of time; tensorrt_rtx needs no graphics card for it."""
    from monitor.engine_plans import Order, build_ahead

    return build_ahead(Order(out, bundle, library, tuple(compute_capability or ()), precision))


@engine_app.command("list", epilog="Example: icewatch engine list plans/")
def show(
    directory: Annotated[Path | None, typer.Argument(help="Folder of plans")] = None,
    config: Config = None,
) -> int:
    """Show the plans in a folder, or in the daemon's cache, and whether each is sound."""
    from monitor.engine_plans import list_plans

    return list_plans(directory, config)


@engine_app.command("verify", epilog="Example: icewatch engine verify plans/ --bundle default")
def verify(
    directory: Annotated[Path | None, typer.Argument(help="Folder of plans")] = None,
    config: Config = None,
    bundle: Annotated[
        str | None, typer.Option(help="Refuse plans that were made of another bundle than this")
    ] = None,
) -> int:
    """Check every plan: owner, mode, record, hash; exit 1 unless there is one and all are sound."""
    from monitor.engine_plans import verify_plans

    return verify_plans(directory, config, bundle)


engine_app.command("benchmark", epilog=EPILOG)(benchmark)
