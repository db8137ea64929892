"""`icewatch keys`: key files for a stream that other computers may subscribe to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

keys_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
)


@keys_app.callback()
def keys() -> None:
    """Make the key files for a stream that leaves this computer.

    The daemon gets one pair and each subscribing program another. In the configuration,
    [publish.curve] names server_key, the daemon's NAME.key_secret, and allowed_keys, a folder
    with the NAME.key of each program that may subscribe; it may grow while the daemon runs.
    """


@keys_app.command(epilog="Example: icewatch keys make krios1 --out /etc/icewatch/keys")
def make(
    name: Annotated[str, typer.Argument(help="What to call it, such as the program it is for")],
    out: Annotated[Path, typer.Option(help="Folder to write NAME.key and NAME.key_secret in")],
) -> None:
    """Make a pair of keys, one public, one secret."""
    from monitor.stream_keys import make_pair

    public, secret = make_pair(out, name)
    typer.echo(f"{public}: public; give it to the other side")
    typer.echo(f"{secret}: secret; only the user who runs the program may read it (mode 0600)")
