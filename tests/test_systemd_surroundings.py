"""Whatever happens around it, the daemon serves or says why not; no tilt is lost or doubled."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fuse_share import Faults, Share
from tests.real_service import STOP_S, Service
from tests.real_systemd import RealSystemd
from tests.waiting import wait_until

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
pytestmark = pytest.mark.slow


@pytest.fixture
def systemd() -> Iterator[RealSystemd]:
    with RealSystemd() as found:
        yield found


@pytest.fixture
def service(systemd: RealSystemd) -> Iterator[Service]:
    with Service(systemd) as found:
        yield found


@contextmanager
def small_state(systemd: RealSystemd, size: str = "4m") -> Iterator[Path]:
    """Let the state lie on a disk of its own."""
    path = systemd.root / "var/lib/icewatch"
    path.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", "/var/lib/icewatch"]
    assert systemd.run(*mount).returncode == 0
    yield path


def test_a_full_disk_is_told_and_nothing_is_lost(systemd: RealSystemd) -> None:
    with small_state(systemd) as disk, Service(systemd) as service:
        service.start().land(2)
        service.wait_for_all()
        ballast = disk / "ballast"
        fill(ballast)
        service.land(3)
        found = service.wait_for_state("degraded")
        assert "state.directory" in found["reason"]
        wait_until(
            lambda: found["reason"] in service.facts()["StatusText"], "systemctl status to say so"
        )
        ballast.unlink()
        service.wait_for_all()
        service.wait_for_state("ready")
        assert service.restarts() == 0


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        for piece in (1 << 16, 1 << 12):
            try:
                while True:
                    file.write(bytes(piece))
            except OSError:
                continue


def test_a_start_on_a_full_disk_waits_for_room(systemd: RealSystemd) -> None:
    with small_state(systemd) as disk, Service(systemd) as service:
        ballast = disk / "ballast"
        fill(ballast)
        systemd.systemctl("start", "--no-block", service.unit)
        wait_until(lambda: service.restarts() > 1, "some tries", 60.0)
        assert "journal" in service.log
        assert "Traceback" not in service.log
        ballast.unlink()
        service.wait_for_restart(service.restarts() - 1)
        service.land()
        service.wait_for_all()


def test_a_read_only_state_is_named_and_waited_for(systemd: RealSystemd) -> None:
    with small_state(systemd), Service(systemd) as service:
        service.start().land(2)
        service.wait_for_all()
        service.stop()
        remount = ["mount", "/var/lib/icewatch", "-o"]
        assert systemd.run(*remount, "remount,ro").returncode == 0
        systemd.systemctl("start", "--no-block", service.unit)
        wait_until(lambda: service.restarts() > 1, "some tries", 60.0)
        assert "state.directory" in service.log
        assert "Traceback" not in service.log
        service.land()
        assert systemd.run(*remount, "remount,rw").returncode == 0
        service.wait_for_all()


@contextmanager
def locked(service: Service) -> Iterator[None]:
    """Let another program hold the journal's lock for a while."""
    code = "import sqlite3, sys; db = sqlite3.connect('/var/lib/icewatch/krios1/journal.sqlite3')"
    code += "; db.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.read()"
    with service.systemd.started("/opt/python/bin/python3", "-c", code) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        yield
        holder.stdin.close()


def test_a_locked_journal_is_told_and_survived(systemd: RealSystemd) -> None:
    # Each of the tries to commit waits ten seconds for the lock.
    with Service(systemd, watchdog_s=30) as service:
        service.start().land(2)
        service.wait_for_all()

        def says_locked() -> bool:
            beat = service.subscriber.messages("status")[-1]
            return beat["state"] == "degraded" and "locked" in beat["reason"]

        with locked(service):
            service.land()
            wait_until(says_locked, "a heartbeat that says that the journal is locked", 60.0)
        service.wait_for_all()
        assert service.restarts() == 0


def test_a_port_that_is_taken_is_named_and_waited_for(service: Service) -> None:
    host, port = service.metrics_address.split(":")
    with socket.create_server((host, int(port))):
        service.systemd.systemctl("start", "--no-block", service.unit)
        wait_until(lambda: service.restarts() > 0, "another try", 60.0)
        assert service.metrics_address in service.log
        assert "Traceback" not in service.log
    service.wait_for_restart(service.restarts() - 1)
    service.land()
    service.wait_for_all()


def test_a_wrong_configuration_ends_it_until_a_person_mends_it(service: Service) -> None:
    right = service.config.read_text()
    service.config.write_text(right.replace("poll_interval_s", "pol_interval_s"))
    done = service.systemd.systemctl("start", service.unit)
    assert done.returncode != 0
    facts = service.facts()
    assert (facts["ActiveState"], facts["NRestarts"]) == ("failed", "0")
    lines = [line for line in service.log.splitlines() if line.startswith("icewatch: ")]
    assert set(lines) == {
        f"icewatch: /etc/icewatch/{service.name}.toml: acquisition.pol_interval_s: unknown key; "
        "did you mean 'poll_interval_s'?"
    }
    service.config.write_text(right)
    service.start().land()
    service.wait_for_all()


def test_a_share_that_goes_and_comes_back_is_waited_for(systemd: RealSystemd) -> None:
    with Service(systemd) as service:
        elsewhere = systemd.shared / "elsewhere"
        service.start().land(2)
        service.wait_for_all()
        data = systemd.shared / "data"
        data.rename(elsewhere)
        service.wait_for_state("stalled")
        time.sleep(2 * service.watchdog_s)  # a hang would be ended by then
        assert service.restarts() == 0
        elsewhere.rename(data)
        service.wait_for_state("ready")
        service.land()
        service.wait_for_all()


@pytest.mark.parametrize("operation", ["readdir", "getattr", "open", "read"])
def test_a_share_that_hangs_is_no_hang_of_the_daemon(operation: str, tmp_path: Path) -> None:
    with Share(tmp_path) as share, RealSystemd(shows={"srv/share": share.mount_point}) as systemd:
        # FUSE lets nobody but who mounted it look in.
        lines = "User=root\nGroup=root\n"
        with Service(systemd, data="/srv/share", unit_lines=lines) as service:
            service.microscope.directory = share.behind
            service.start().land(2)
            service.wait_for_all()
            with share.failing(Faults(hangs=(operation,))):
                service.land()
                service.wait_for_state("stalled")
                time.sleep(3 * service.watchdog_s)
                assert service.restarts() == 0
                assert service.status()["state"] == "stalled"
            service.wait_for_all()
            service.wait_for_state("ready")


@pytest.mark.parametrize("jump_s", [86400, -86400])
def test_a_clock_that_jumps_loses_nothing(systemd: RealSystemd, jump_s: int) -> None:
    if FAKETIME is None:
        pytest.skip("needs Debian package libfaketime")
    offset = systemd.shared / "offset"
    offset.write_text("+0")
    lines = (
        f"Environment=LD_PRELOAD={FAKETIME} FAKETIME_TIMESTAMP_FILE=/srv/test/offset\n"
        "Environment=FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_NO_CACHE=1 NO_FAKE_STAT=1\n"
    )
    with Service(systemd, unit_lines=lines) as service:
        service.start().land(2)
        service.wait_for_all()
        offset.write_text(f"{jump_s:+d}")
        service.land(2)
        service.wait_for_all()
        clocks = {one["time"][:10] for one in service.subscriber.messages("tilt")}
        assert len(clocks) == 2, "the clock did jump"
        os.kill(service.systemd.main_pid(service.unit), signal.SIGKILL)
        service.land()
        service.wait_for_restart(0)
        service.wait_for_all()
        assert service.restarts() == 1


@pytest.mark.parametrize("damage", ["cut", "zeroed", "flipped", "gone"])
def test_a_damaged_journal_is_survived(service: Service, damage: str) -> None:
    service.start().land(3)
    service.wait_for_all()
    first_boot = service.subscriber.messages("tilt")[0]["boot_id"]
    assert service.stop() < STOP_S
    journal = service.state / "journal.sqlite3"
    content = bytearray(journal.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "zeroed":
        content = bytearray(len(content))
    else:
        for at in range(100, len(content), 997):
            content[at] ^= 0x40
    if damage == "gone":
        shutil.rmtree(service.state)
    else:
        journal.write_bytes(content)
    service.start()
    service.land()
    print(damage, service.status().get("reason"))

    def heard() -> set[str]:
        """The tilts of this boot: what was lost with the journal is measured again."""
        found = [json.loads(body) for body in service.subscriber.bodies("tilt")]
        return {one["tilt"]["id"] for one in found if one["boot_id"] != first_boot}

    wait_until(lambda: len(heard()) == 4, "each tilt, measured again", 60.0)
    assert service.restarts() == 0
