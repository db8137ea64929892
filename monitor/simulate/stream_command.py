"""`icewatch simulate stream`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

STREAM_EXAMPLE = (
    "Example: icewatch simulate stream --endpoint tcp://127.0.0.1:5599 --speed 50 --drop 0.1 "
    "--restart-every 40"
)


def simulate_stream(
    endpoint: Annotated[
        str, typer.Option(help="Where to publish, as publish.zmq_endpoint")
    ] = "tcp://127.0.0.1:5556",
    speed: Annotated[
        float, typer.Option(help="How many times faster than real time", min=0.01, max=1e6)
    ] = 20.0,
    lamellae: Annotated[int, typer.Option(help="Number of lamellae", min=1, max=200)] = 4,
    tilts: Annotated[int, typer.Option(help="Tilts of each lamella", min=1, max=200)] = 41,
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn", min=0)] = 0,
    drop: Annotated[
        float, typer.Option(help="Share of the messages that are lost, 0 to 1", min=0.0, max=1.0)
    ] = 0.0,
    restart_every: Annotated[
        int | None, typer.Option(help="Start anew, with another boot_id, after each N tilts", min=1)
    ] = None,
    stall_every: Annotated[
        int | None, typer.Option(help="Fall silent after each N tilts", min=1)
    ] = None,
    stall_s: Annotated[
        float, typer.Option(help="For how long, in seconds", min=0.0, max=3600.0)
    ] = 10.0,
    end_after: Annotated[
        float | None, typer.Option(help="End so many seconds after the last message", min=0.0)
    ] = None,
) -> int:
    """Publish the messages of a pretend session, to write and try subscribers with."""
    from monitor.simulate.stream import Part
    from monitor.simulate.stream_play import StreamRequest, play_stream

    part = Part(lamellae, tilts, seed)
    faults = (drop, restart_every, stall_every, stall_s)
    return play_stream(StreamRequest(endpoint, part, speed, *faults, end_after))
