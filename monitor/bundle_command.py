"""The arguments of `icewatch bundle`: one short function for each of its sub-commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

bundle_app = typer.Typer(
    no_args_is_help=True,
    epilog="Example: icewatch bundle install tuned.zip --config /etc/icewatch/krios1.toml",
    rich_markup_mode=None,
)

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML configuration file of the daemon")
]
State = Annotated[
    Path | None, typer.Option("--state", help="Its state directory, in place of --config")
]
Ref = Annotated[str, typer.Argument(help="NAME, or NAME@VERSION; default: the shipped one")]


@bundle_app.callback()
def bundle() -> None:
    """Install networks beside the shipped one, change over to one, and back.

    They lie in the daemon's state directory. A daemon that runs changes over between two tilts,
    once the new one is proved; one that does not run does so at its next start. What the
    configuration names by its path as model.bundle holds over all of this.
    """


@bundle_app.command("list", epilog="Example: icewatch bundle list --config krios1.toml")
def show(
    config: Config = None,
    state: State = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON")] = False,
) -> None:
    """Show what is installed and which one serves."""
    from monitor.bundle_actions import place_of
    from monitor.bundle_list import show_bundles

    show_bundles(place_of(config, state), as_json=as_json)


@bundle_app.command(
    "install", epilog="Example: icewatch bundle install tuned.zip --config krios1.toml"
)
def install(
    path: Annotated[Path, typer.Argument(help="Folder or zip file of a bundle")],
    config: Config = None,
    state: State = None,
    even_if_worse: Annotated[
        bool,
        typer.Option("--even-if-worse", help="Take it though it reads held-out tilts worse"),
    ] = False,
) -> None:
    """Check, prove and copy a bundle.

    The one that serves goes on; `activate` lets the new one read.
    """
    from monitor.bundle_actions import install_bundle, place_of

    install_bundle(place_of(config, state), path, even_if_worse=even_if_worse)


@bundle_app.command("activate", epilog="Example: icewatch bundle activate tuned -c krios1.toml")
def activate(ref: Ref, config: Config = None, state: State = None) -> None:
    """Let a bundle read all tilts from now on."""
    from monitor.bundle_actions import activate_bundle, place_of

    activate_bundle(place_of(config, state), ref)


@bundle_app.command("rollback", epilog="Example: icewatch bundle rollback --config krios1.toml")
def rollback(config: Config = None, state: State = None) -> None:
    """Go back to the bundle that was active before."""
    from monitor.bundle_actions import place_of, roll_back

    roll_back(place_of(config, state))


@bundle_app.command("remove", epilog="Example: icewatch bundle remove tuned@1 -c krios1.toml")
def remove(ref: Ref, config: Config = None, state: State = None) -> None:
    """Remove an installed bundle.

    It may neither serve nor be the shadow.
    """
    from monitor.bundle_actions import place_of, remove_bundle

    remove_bundle(place_of(config, state), ref)


@bundle_app.command("shadow", epilog="Example: icewatch bundle shadow tuned -c krios1.toml")
def shadow(
    ref: Annotated[
        str | None, typer.Argument(help="NAME, or NAME@VERSION; default: the shipped one")
    ] = None,
    config: Config = None,
    state: State = None,
    off: Annotated[bool, typer.Option("--off", help="Let none read beside it any more")] = False,
) -> None:
    """Let a bundle read beside the active one.

    It reads the same tilts while none waits, at the lowest priority. Nothing of it is published;
    `compare` shows what it would have said.
    """
    from monitor.bundle_actions import place_of, shadow_bundle

    shadow_bundle(place_of(config, state), ref, off=off)


@bundle_app.command("compare", epilog="Example: icewatch bundle compare --config krios1.toml")
def compare(
    ref: Annotated[
        str | None, typer.Argument(help="NAME, or NAME@VERSION (default: the shadow)")
    ] = None,
    config: Config = None,
    state: State = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON")] = False,
) -> None:
    """Compare the shadow with what was published.

    On the same tilts, with the verdicts that would have differed.
    """
    from monitor.bundle_actions import place_of
    from monitor.bundle_compare import show_comparison

    show_comparison(place_of(config, state), ref, as_json=as_json)
