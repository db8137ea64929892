"""Try what the plain installation promises: run, check, score and listen.

Runs with the environment's Python in an empty folder, outside the source tree, so that all that
icewatch reads is package data. MRC and mdoc are written here byte by byte, not by icewatch.
"""

import importlib.metadata
import importlib.util
import json
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ICEWATCH = str(Path(sys.executable).with_name("icewatch"))
DEADLINE_S = 60
SIDE_PX = 512
PIXEL_SIZE_ANGSTROM = 10.0
ABSENT = ("torch", "matplotlib", "segmentation_models_pytorch", "mrcfile", "pytest")
CONFIGURATION = """
[acquisition]
directory = "landing"
[publish]
zmq_endpoint = "tcp://127.0.0.1:{}"
metrics_address = "127.0.0.1:{}"
web_address = "127.0.0.1:{}"
[state]
directory = "state"
"""


def icewatch(*arguments: str) -> str:
    """Run a sub-command to its end and return what it printed."""
    command = [ICEWATCH, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with status {done.returncode}: {done.stderr}")
    return done.stdout


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Keep a sub-command running for a while, then end it with SIGTERM."""
    with subprocess.Popen([ICEWATCH, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback that nothing listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def write_mrc(path: Path) -> None:
    """Write one int16 section, soft structure and shot noise, with its pixel size."""
    random = np.random.default_rng(0)
    soft = np.kron(random.normal(200.0, 20.0, (64, 64)), np.ones((SIDE_PX // 64, SIDE_PX // 64)))
    image = random.poisson(soft).astype("<i2")
    cell = SIDE_PX * PIXEL_SIZE_ANGSTROM
    counts = (SIDE_PX, SIDE_PX, 1)
    words = (*counts, 1, 0, 0, 0, *counts, cell, cell, 10.0, 90.0, 90.0, 90.0, 1, 2, 3)
    header = struct.pack("<10i6f3i", *words).ljust(208, b"\0") + b"MAP \x44\x44\0\0"
    path.write_bytes(header.ljust(1024, b"\0") + image.tobytes())


def land_tilt(folder: Path) -> None:
    """Let a stack of one section land as SerialEM writes it: the mdoc section comes last."""
    write_mrc(folder / "TS_001.mrc")
    (folder / "TS_001.mrc.mdoc").write_text(
        f"PixelSpacing = {PIXEL_SIZE_ANGSTROM}\nImageFile = TS_001.mrc\n"
        f"ImageSize = {SIDE_PX} {SIDE_PX}\nDataMode = 1\n\n"
        "[T = SerialEM: smoke test                                  05-Jan-26  10:00:00]\n\n"
        f"[ZValue = 0]\nTiltAngle = 8.0\nPixelSpacing = {PIXEL_SIZE_ANGSTROM}\n"
        "ExposureDose = 3.0\nDateTime = 05-Jan-26  10:00:30\n"
    )


def try_score() -> None:
    """Score a file: a number, not null."""
    write_mrc(Path("single.mrc"))
    (line,) = icewatch("score", "--json", "single.mrc").splitlines()
    reading = json.loads(line)
    assert reading["ice"]["percent"] is not None, reading
    assert reading["model"]["backend"] == "onnxruntime", reading
    icewatch("score", "--masks", "masks", "single.mrc")
    assert sorted(path.name for path in Path("masks").iterdir()) == [
        "single_0000.mask.mrc",
        "single_0000.overlay.png",
    ]


def try_daemon() -> None:
    """Run the daemon, let a tilt land, and hear of it."""
    landing = Path("landing/session")
    landing.mkdir(parents=True)
    ports = free_ports(3)
    Path("icewatch.toml").write_text(CONFIGURATION.format(*ports))
    icewatch("check", "icewatch.toml")
    endpoint = f"tcp://127.0.0.1:{ports[0]}"
    with (
        started("run", "--config", "icewatch.toml") as daemon,
        started("listen", "--endpoint", endpoint, "--from-seq", "0", "--json") as listener,
    ):
        assert listener.stdout is not None
        heard = map(json.loads, listener.stdout)
        next(message for message in heard if message.get("state") == "ready")
        land_tilt(landing)
        tilt = next(message for message in heard if message["schema"] == "icewatch.tilt/1")
    assert tilt["tilt"]["angle_deg"] == 8.0, tilt
    assert tilt["ice"]["percent"] is not None, tilt
    assert tilt["tilt"]["pixel_size_angstrom"] == PIXEL_SIZE_ANGSTROM, tilt
    assert daemon.returncode == 0, f"SIGTERM ended `icewatch run` with {daemon.returncode}"
    assert sorted(path.name for path in Path("landing").rglob("*.mrc*")) == [
        "TS_001.mrc",
        "TS_001.mrc.mdoc",
    ]
    assert Path("state/verdicts/ice_skip.txt").read_text().startswith("icewatch 1 ")


def give_up(*_: object) -> None:
    """End what waits for a message that does not come."""
    sys.exit(f"nothing was heard within {2 * DEADLINE_S} s")


def main() -> None:
    """Try everything; the first failure ends it."""
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(2 * DEADLINE_S)
    installed = [name for name in ABSENT if importlib.util.find_spec(name)]
    assert not installed, f"the plain installation brings {installed}"
    assert not [name for name in ("monitor", "engines") if Path(name).exists()]
    assert "Usage: icewatch" in icewatch("--help")
    try_score()
    try_daemon()
    version = importlib.metadata.version("icewatch")
    print(f"icewatch {version} from the wheel: score, check, run and listen work")


if __name__ == "__main__":
    main()
