"""The `icewatch` command: one short function for each sub-command."""

from __future__ import annotations

import json
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from monitor.errors import ConfigError, MonitorError

app = typer.Typer(
    name="icewatch",
    help="Measures crystalline ice in cryo-ET tilts as they land.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path, typer.Option("--config", "-c", help="TOML configuration file")]
EXIT_FAILED, EXIT_USAGE = 1, 2


def main() -> None:
    """Run a sub-command; what goes wrong is one line on standard error and an exit status."""
    try:
        status = app(standalone_mode=False)
    except ConfigError as error:
        _complain(str(error))
        status = EXIT_USAGE
    except MonitorError as error:
        _complain(str(error))
        status = EXIT_FAILED
    except typer.TyperException as error:
        status = _refuse(error)
    except (KeyboardInterrupt, typer.Abort, BrokenPipeError):
        status = EXIT_FAILED
    sys.exit(status if isinstance(status, int) else 0)


def _refuse(error: typer.TyperException) -> int:
    """Say what is wrong with the arguments; without any, show the help."""
    if len(sys.argv) < 2:
        typer.echo(error.format_message())
    elif error.exit_code == EXIT_USAGE:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "icewatch"
        _complain(f"{command}: {error.format_message()} See {command} --help")
    else:
        _complain(error.format_message())
    return error.exit_code


def _complain(sentence: str) -> None:
    sys.stderr.write(f"icewatch: {' '.join(sentence.split())}\n")


@app.command(epilog="Example: icewatch demo")
def demo(
    keep: Annotated[
        Path | None, typer.Option(help="Directory to work in and to keep (default: a new one)")
    ] = None,
    speed: Annotated[
        float, typer.Option(help="How many times faster than the default pace", min=0.1, max=20.0)
    ] = 1.0,
) -> int:
    """Watch a pretend microscope: tilts land, ice is read, verdicts are reached."""
    from monitor.demo.play import play

    return play(keep, speed)


@app.command(epilog="Example: icewatch run --config /etc/icewatch/krios1.toml")
def run(config: Config) -> int:
    """Watch the acquisition directory and publish readings until stopped."""
    # Until the daemon takes over, nothing is open yet: a stop is an exit and nothing more.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from monitor.app import run as run_daemon
    from monitor.settings import load

    settings = load(config)
    check_bundle(config, settings.model.bundle, settings.model.backend)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s"
    )
    return run_daemon(settings)


@app.command(epilog="Example: icewatch check /etc/icewatch/krios1.toml")
def check(config: Annotated[Path, typer.Argument(help="TOML configuration file")]) -> None:
    """Say whether a configuration is right, without starting anything."""
    from monitor.settings import load

    settings = load(config)
    check_bundle(config, settings.model.bundle, settings.model.backend)
    typer.echo(f"{config}: ok")
    if not settings.acquisition.directory.exists():
        typer.echo(f"note: '{settings.acquisition.directory}' is not there yet; `run` waits for it")


def check_bundle(config: Path, bundle: str, backend: str) -> None:
    """Raise `ConfigError` where the bundle or the backend of a configuration cannot be used."""
    from engines.bundle import Bundle
    from engines.errors import BackendError, BundleError
    from monitor.network import choose_backend

    try:
        Bundle.load(bundle)
        choose_backend(backend)
    except BundleError as error:
        raise ConfigError(f"{config}: model.bundle: {error}") from error
    except BackendError as error:
        raise ConfigError(f"{config}: model.backend: {error}") from error


@app.command(epilog="Example: icewatch score --masks masks/ TS_001.mrc")
def score(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders with tilts")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for each tilt")] = False,
    masks: Annotated[
        Path | None, typer.Option(help="Write mask and overlay of each tilt below this directory")
    ] = None,
    model: Annotated[str, typer.Option(help="Bundle to read with")] = "default",
    pixel_size: Annotated[
        float | None,
        typer.Option(help="Pixel size in angstrom, where the files do not tell", min=0.01, max=1e4),
    ] = None,
) -> int:
    """Measure the ice in tilts that are already on disk."""
    from monitor.score import Request, score_paths

    return score_paths(Request(tuple(paths), as_json, masks, model, pixel_size))


@app.command(epilog="Example: icewatch listen --from-seq 0")
def listen(
    endpoint: Annotated[
        str, typer.Option(help="publish.zmq_endpoint of the daemon")
    ] = "tcp://127.0.0.1:5556",
    from_seq: Annotated[
        int | None, typer.Option(help="Print the past from this number on first (0: all)", min=0)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Messages as they came")] = False,
) -> None:
    """Print what the daemon publishes, until ended."""
    from monitor.listen import listen as follow
    from monitor.messages import StatusMessage
    from monitor.screen import message_line

    for message, body in follow(endpoint, from_seq):
        if as_json:
            sys.stdout.write(body.decode() + "\n")
        elif not isinstance(message, StatusMessage):
            typer.echo(message_line(message))
        sys.stdout.flush()


@app.command(epilog="Example: icewatch status --address 127.0.0.1:8080")
def status(
    address: Annotated[
        str, typer.Option(help="publish.web_address of the daemon")
    ] = "127.0.0.1:8080",
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Take the address from this file")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON")] = False,
) -> int:
    """Say how a running daemon is and what its lamellae look like."""
    from monitor.screen import show_status
    from monitor.settings import load
    from monitor.web.client import fetch_status

    found = fetch_status(load(config).publish.web_address if config else address)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        show_status(found)
    working: bool = found["state"] in ("ready", "degraded")
    return 0 if working else EXIT_FAILED
