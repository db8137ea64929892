"""Whatever happens to it, systemd has the daemon back in service; no tilt is lost or doubled."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.real_service import STOP_S, Service
from tests.real_systemd import RealSystemd
from tests.waiting import wait_until

BACK_S = 5.0
"""Beyond the watchdog's time, until it is ready again: on a computer that has time for it."""
QUICK_START_S = 2.5
"""A start takes less where nothing else runs; where it takes longer, all does."""
CRASHES = 100


@pytest.fixture
def systemd() -> Iterator[RealSystemd]:
    with RealSystemd() as found:
        yield found


@pytest.fixture
def service(systemd: RealSystemd) -> Iterator[Service]:
    with Service(systemd) as found:
        yield found


def back_within_s(service: Service) -> float:
    """How long it may take to be back, once it ended, on this computer as it is now."""
    return BACK_S * max(1.0, service.start_took_s / QUICK_START_S)


def test_a_worker_that_hangs_is_replaced_and_nothing_is_lost(service: Service) -> None:
    service.start().land()
    service.wait_for_all()
    wait_until(lambda: service.facts()["StatusText"] == "ready", "systemctl status to say so")
    assert service.systemd.systemctl("reload", service.unit).returncode == 0
    assert "telemetry" not in service.log, "ONNX Runtime sends nothing out"
    service.let_happen("worker-commit")
    service.land()
    service.wait_for_restart(0)
    assert service.restarts() == 1
    service.land()
    service.wait_for_all()
    assert "_deadlock" in service.log, "it says where its threads were"
    assert service.stop() < STOP_S


HANGS = (
    "worker-commit",
    "worker-decode",
    "worker-idle",
    "worker-spins",
    "intake",
    "publisher",
    "publisher-sends",
    "interpreter",
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", HANGS)
def test_every_thread_is_watched(service: Service, kind: str) -> None:
    service.start().land(2)
    service.wait_for_all()
    service.let_happen(kind)
    service.land()
    took_s = service.wait_for_restart(0)
    service.land()
    service.wait_for_all()
    print(f"{kind}: back after {took_s:.1f} s; a start takes {service.start_took_s:.1f} s")
    assert took_s < service.watchdog_s + back_within_s(service)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_50_deadlocks_are_all_caught(service: Service) -> None:
    service.start()
    for number in range(50):
        service.let_happen(HANGS[number % len(HANGS)])
        service.land()
        service.wait_for_restart(number)
    service.wait_for_all()
    assert service.status()["set_aside"] == []


@pytest.mark.slow
def test_a_process_that_is_stopped_is_replaced(service: Service) -> None:
    service.start().land(2)
    service.wait_for_all()
    os.kill(service.systemd.main_pid(service.unit), signal.SIGSTOP)
    service.land()
    took_s = service.wait_for_restart(0)
    service.wait_for_all()
    print(f"back after {took_s:.1f} s; a start takes {service.start_took_s:.1f} s")
    assert took_s < service.watchdog_s + back_within_s(service)


@pytest.mark.slow
def test_a_long_decode_that_gets_on_is_no_hang(service: Service) -> None:
    service.start().let_happen("long-decode")
    service.land(2)
    service.wait_for_all()
    assert service.restarts() == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kill", "crash", "intake-dies"])
def test_a_daemon_that_dies_is_back_within_seconds(service: Service, kind: str) -> None:
    service.start().land(2)
    service.wait_for_all()
    if kind == "kill":
        os.kill(service.systemd.main_pid(service.unit), signal.SIGKILL)
    else:
        service.let_happen(kind)
    service.land()
    took_s = service.wait_for_restart(0)
    service.land()
    service.wait_for_all()
    print(f"{kind}: back after {took_s:.1f} s; a start takes {service.start_took_s:.1f} s")
    assert took_s < back_within_s(service)


@pytest.mark.slow
def test_a_daemon_without_memory_is_replaced() -> None:
    with (
        RealSystemd(limits_memory=True) as systemd,
        Service(systemd, unit_lines="MemoryMax=700M\nMemorySwapMax=0\n") as service,
    ):
        service.start().land(2)
        service.wait_for_all()
        service.let_happen("memory")
        service.land()
        service.wait_for_restart(0)
        service.land()
        service.wait_for_all()


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_100_crashes_reach_no_limit(service: Service) -> None:
    """A tilt that was being read at two of them is set aside until somebody asks for it."""
    service.start()
    for number in range(CRASHES):
        os.kill(service.systemd.main_pid(service.unit), signal.SIGKILL)
        service.land()
        service.wait_for_restart(number)
    wait_until(lambda: service.status().get("backlog") == 0, "the others to be read", 60.0)
    aside = len(service.status()["set_aside"])
    print(f"{aside} of {CRASHES} tilts were set aside")
    if aside:
        retry = ["icewatch", "retry", "--config", f"/etc/icewatch/{service.name}.toml"]
        done = service.systemd.run("/opt/icewatch/bin/" + retry[0], *retry[1:])
        assert done.returncode == 0, done.stderr
    service.wait_for_all()
    assert service.restarts() == CRASHES
