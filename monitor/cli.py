"""The `icewatch` command: one short function for each sub-command."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from monitor.annotate.command import annotate_app
from monitor.bundle_command import bundle_app
from monitor.default_command import DEFAULT, DefaultGroup
from monitor.engine_command import engine_app
from monitor.errors import ConfigError, MonitorError
from monitor.evaluate_command import evaluate_app
from monitor.simulate.stream_command import STREAM_EXAMPLE, simulate_stream
from monitor.stream_keys_command import keys_app

app = typer.Typer(
    name="icewatch",
    help="Measures crystalline ice in cryo-ET tilts as they land.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(annotate_app, name="annotate")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(engine_app, name="engine")
app.add_typer(keys_app, name="keys")
app.add_typer(bundle_app, name="bundle")
simulate_app = typer.Typer(cls=DefaultGroup, rich_markup_mode=None)
app.add_typer(
    simulate_app,
    name="simulate",
    help="Let a pretend microscope write tilt series, or simulate a data set or a stream.",
)
simulate_app.command("stream", epilog=STREAM_EXAMPLE)(simulate_stream)

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


@simulate_app.command(
    DEFAULT,
    epilog="Example: icewatch simulate OUT --layout pacetomo --speed 20 --truth truth.jsonl\n\n"
    "Example: icewatch simulate dataset OUT --seed 1 --series 100 (its options: --help)",
)
def simulate(
    out: Annotated[Path, typer.Argument(help="Directory to write in: a new one, or an empty one")],
    layout: Annotated[
        str,
        typer.Option(
            help="serialem, serialem-bidirectional, serialem-resumed, pacetomo, frames-tiff, "
            "frames-tiff-4bit, frames-mrc, frames-eer, tomography5, tomography5-5.7, "
            "tomography5-eer, mixed or custom"
        ),
    ] = "serialem",
    series: Annotated[int, typer.Option(help="Number of tilt series", min=1, max=1000)] = 3,
    tilts: Annotated[int, typer.Option(help="Tilts of each series", min=1, max=200)] = 41,
    size: Annotated[int, typer.Option(help="Side of an image in pixels", min=16, max=16384)] = 1024,
    pixel_size: Annotated[
        float, typer.Option(help="Pixel size in angstrom", min=0.1, max=100.0)
    ] = 3.375,
    interval: Annotated[
        float, typer.Option(help="Seconds between two tilts", min=0.0, max=86400.0)
    ] = 26.0,
    speed: Annotated[
        float, typer.Option(help="How many times faster than real time", min=0.01, max=1e6)
    ] = 1.0,
    images: Annotated[
        Path | None, typer.Option(help="Folder of MRC, TIFF or PNG images to show instead")
    ] = None,
    ice: Annotated[
        list[float] | None,
        typer.Option(help="Ice wanted in percent, for each series in turn", min=0.0, max=100.0),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="stall, cut, blink, reorder, late-mdoc, no-mdoc, overwrite or rsync; repeatable"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn", min=0)] = 0,
    write_speed: Annotated[
        float | None, typer.Option(help="Write no faster than this, in MB/s", min=0.001, max=1e6)
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="File for one JSON line on each exposure, outside OUT")
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Add a session to OUT")] = False,
) -> int:
    """Let a pretend microscope write tilt series as the real programs do.

    Or, with `dataset` for OUT, simulate tilts with their truth to train and test networks on; with
    `stream`, publish the messages of a pretend session (`icewatch simulate stream --help`).
    """
    from monitor.simulate.command import simulate as write_session
    from monitor.simulate.request import Request

    request = Request(
        out=out,
        layout=layout,
        series=series,
        tilts=tilts,
        size_px=size,
        pixel_size_angstrom=pixel_size,
        interval_s=interval,
        speed=speed,
        images=images,
        ice_percent=tuple(ice or ()),
        faults=tuple(fault or ()),
        seed=seed,
        write_mb_per_s=write_speed,
        truth=truth,
        append=append,
    )
    return write_session(request)


@simulate_app.command(
    "dataset", epilog="Example: icewatch simulate dataset OUT --seed 1 --series 100 --workers 2"
)
def simulate_dataset(
    out: Annotated[Path, typer.Argument(help="Directory to write in; what is there is continued")],
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn", min=0)],
    series: Annotated[int, typer.Option(help="Number of tilt series", min=1, max=1_000_000)],
    families: Annotated[
        str,
        typer.Option(help="train, held-out, foreign, foreign-test, or names of families, by comma"),
    ] = "train",
    tilts: Annotated[int, typer.Option(help="Tilts of each series", min=1, max=200)] = 4,
    size_px: Annotated[int, typer.Option(help="Side of a picture, px", min=64, max=1024)] = 320,
    workers: Annotated[int, typer.Option(help="Processes to simulate with", min=1, max=256)] = 1,
) -> int:
    """Simulate tilts with and without ice and their exact truth, to train and test networks on."""
    from monitor.simulate.dataset import Request, simulate_dataset

    return simulate_dataset(Request(out, seed, series, families, tilts, size_px, workers))


@app.command(epilog="Example: icewatch replay /data/finished --to /data/offload --speed 20")
def replay(
    directory: Annotated[Path, typer.Argument(help="Finished session; it is only read")],
    to: Annotated[Path, typer.Option(help="Directory to write in: a new one, or an empty one")],
    speed: Annotated[
        float, typer.Option(help="How many times faster than real time", min=0.01, max=1e6)
    ] = 1.0,
    keep_gaps: Annotated[
        bool, typer.Option("--keep-gaps", help="Do not shorten pauses of more than a minute")
    ] = False,
) -> int:
    """Let a finished session land once more, with the timing that it had."""
    from monitor.simulate.replay import replay as write_again

    return write_again(directory, to, speed=speed, keep_gaps=keep_gaps)


@app.command(epilog="Example: icewatch run --config /etc/icewatch/krios1.toml")
def run(config: Config) -> int:
    """Watch the acquisition directory and publish readings until stopped."""
    # Until the daemon takes over, nothing is open yet: a stop is an exit and nothing more.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # it asks for new settings, later
    from monitor.app import run as run_daemon
    from monitor.logs import set_up as set_up_logs
    from monitor.publish_settings import check_keys
    from monitor.settings import load

    settings = load(config)
    check_keys(config, settings.publish)
    check_bundle(config, settings.model.bundle, settings.model.backend)
    set_up_logs()
    return run_daemon(settings, config)


@app.command(epilog="Example: icewatch check /etc/icewatch/krios1.toml")
def check(config: Annotated[Path, typer.Argument(help="TOML configuration file")]) -> None:
    """Say whether a configuration is right, without starting anything."""
    from monitor.publish_settings import check_keys
    from monitor.settings import load

    settings = load(config)
    check_keys(config, settings.publish)
    check_bundle(config, settings.model.bundle, settings.model.backend, warm_up=True)
    typer.echo(f"{config}: ok")
    if not settings.acquisition.directory.exists():
        typer.echo(f"note: '{settings.acquisition.directory}' is not there yet; `run` waits for it")


def check_bundle(config: Path, bundle: str, backend: str, *, warm_up: bool = False) -> None:
    """Raise `ConfigError` where the bundle or the backend of a configuration cannot be used.

    `warm_up` builds the backend, as the daemon's worker does by itself: two cost it 85 MB.
    """
    from engines.bundle import Bundle
    from engines.domain_file import monitor_of
    from engines.errors import BackendError, BundleError
    from monitor.network import choose_backend

    try:
        loaded = Bundle.load(bundle)
        monitor_of(loaded)
        chosen = choose_backend(backend)
        if warm_up:
            chosen.build(loaded).close()
    except BundleError as error:
        raise ConfigError(f"{config}: model.bundle: {error}") from error
    except BackendError as error:
        raise ConfigError(f"{config}: model.backend: {error}") from error


@app.command(epilog="Example: icewatch doctor --config /etc/icewatch/krios1.toml")
def doctor(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="TOML file (default: all in /etc/icewatch)"),
    ] = None,
    prometheus: Annotated[
        str, typer.Option(help="Where Prometheus answers, if it does")
    ] = "http://127.0.0.1:9090",
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON")] = False,
) -> int:
    """Find out what is wrong, and what to do; changes nothing, whether icewatch runs or not."""
    from monitor.doctor.command import doctor as look

    return look(config, prometheus, as_json=as_json)


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
    server_key: Annotated[
        Path | None, typer.Option(help="NAME.key of the daemon, where it has [publish.curve]")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="NAME.key_secret of your own")] = None,
) -> None:
    """Print what the daemon publishes, until ended."""
    from monitor.journal_replay import is_notice
    from monitor.listen import listen as follow
    from monitor.listen import load_keys
    from monitor.messages import StatusMessage
    from monitor.screen import message_line

    for message, body in follow(endpoint, from_seq, keys=load_keys(server_key, key)):
        if as_json:
            sys.stdout.write(body.decode() + "\n")
        elif not isinstance(message, StatusMessage) or is_notice(message):
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
    """Say how a daemon is and what its lamellae look like; if it does not run, what it left."""
    from monitor.bundle_list import bundle_line
    from monitor.screen import show_status
    from monitor.settings import parse
    from monitor.web.client import fetch_status

    settings = parse(config) if config else None
    try:
        found = fetch_status(settings.publish.web_address if settings else address)
    except ConfigError:
        raise
    except MonitorError as error:
        if settings is None:
            raise
        from monitor.journal_afterwards import left_by

        _complain(str(error))
        found = left_by(settings.state.directory, settings.microscope)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        show_status(found)
        if line := bundle_line(found):
            typer.echo(line)
    working: bool = found["state"] in ("ready", "degraded")
    return 0 if working else EXIT_FAILED


@app.command(epilog="Example: icewatch retry --config /etc/icewatch/krios1.toml TS_007")
def retry(
    config: Config,
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Series or files of which to try tilts again (default: all)"),
    ] = None,
) -> None:
    """Ask for tilts again that were set aside because the daemon died of them."""
    from monitor.retry import ask_again
    from monitor.screen import plain
    from monitor.settings import load

    for tilt in ask_again(load(config), names or []):
        typer.echo(f"tried again: {plain(tilt['path'])}, section {tilt['section']}")
