"""All looks at once, each in a process of its own, and an end to waiting for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from monitor.doctor import folders, journals, landed, machine, models, ports
from monitor.doctor.abandon import Look, Seen
from monitor.doctor.facts import Facts, ask_daemon, ask_systemd, unit_of, user_of
from monitor.doctor.finding import Finding, ok, problem, split, warning
from monitor.errors import ConfigError
from monitor.settings import check_places, parse

CONFIG_S, ALL_S = 0.8, 4.0
"""Reading the configuration, and everything, take no longer, whatever hangs."""
FOLDER = Path("/etc/icewatch")

_Check = Callable[[Facts], list[Finding]]
_AS_SERVICE: dict[str, _Check] = {
    "acquisition.directory": folders.acquisition,
    "state.directory": folders.state,
    "verdict.directory": folders.verdicts,
    "journal": journals.journal,
    "files": landed.landed,
    "model.bundle": models.model,
    "model.backend": models.gpu,
}
_AS_WE_ARE: dict[str, _Check] = {
    "ports": ports.ports,
    "memory": machine.memory,
    "service": machine.service,
    "Prometheus": machine.prometheus,
}
_HANGS = {
    "acquisition.directory": "the share hangs: see to the mount, the network and the file server",
    "state.directory": "see to its disk: `dmesg` may say more",
    "verdict.directory": "see to its share or disk",
    "journal": "see to the disk of state.directory",
    "files": "the share hangs or is very slow: see to the mount and the network",
    "model.backend": "the driver may hang: see whether `nvidia-smi` answers",
}


def examine(config: Path, prometheus: str = "http://127.0.0.1:9090") -> list[Finding]:
    """Look at everything around one configuration; takes less than five seconds."""
    began_s = time.monotonic()
    said = Look(partial(_readable, config)).result(began_s + CONFIG_S).findings
    if said is None:
        cause = f"{config} could not be read within {CONFIG_S:g} s"
        return [problem("configuration", cause, "see to the disk or share that it lies on")]
    if said:
        return said
    settings = parse(config)
    unit = unit_of(config)
    known = ask_systemd(unit)
    facts = Facts(
        config,
        settings,
        unit if known else "",
        known,
        user_of(known, settings.state.directory),
        ask_daemon(settings),
        prometheus,
    )
    return look(facts, began_s + ALL_S)


def look(facts: Facts, until_s: float) -> list[Finding]:
    """Take all looks at once and wait for them until a moment (monotonic)."""
    looks = {"configuration": Look(partial(_places, facts), facts.user)}
    for name, check in {**_AS_SERVICE, **_AS_WE_ARE}.items():
        user = facts.user if name in _AS_SERVICE else None
        looks[name] = Look(partial(check, facts), user)
    found: list[Finding] = []
    for name, one in looks.items():
        said = one.result(until_s)
        found += _no_answer(name, facts, said) if said.findings is None else said.findings
    return _once(found)


def _readable(config: Path) -> list[Finding]:
    try:
        parse(config)
    except ConfigError as error:
        return [split("configuration", str(error))]
    return []


def _places(facts: Facts) -> list[Finding]:
    """See what `icewatch check` would refuse."""
    from monitor.publish_settings import check_keys

    try:
        check_places(facts.settings, facts.config)
        check_keys(facts.config, facts.settings.publish)
    except ConfigError as error:
        return [split("configuration", str(error))]
    return [ok("configuration", f"{facts.config} is right")]


def _no_answer(name: str, facts: Facts, said: Seen) -> list[Finding]:
    if name == "configuration":
        return []  # what hangs is named by its own look
    if said.is_busy or name not in _HANGS:
        cause = "not finished in time: this computer is busy"
        return [warning(name, cause, "try again later")]
    what = "no answer"
    if name in ("acquisition.directory", "files"):
        what = f"'{facts.settings.acquisition.directory}' does not answer"
    return [problem(name, what, _HANGS[name])]


def _once(found: list[Finding]) -> list[Finding]:
    """Leave out what was said before in the same words."""
    return list({(one.topic, one.cause): one for one in found}.values())
