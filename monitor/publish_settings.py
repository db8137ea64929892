"""Where readings, metrics and the state can be had, and who may have them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from monitor.errors import ConfigError

_ADDRESS = re.compile(r"^(?P<host>[^\s:/]+|\[[0-9a-fA-F:]+\]):(?P<port>\d+)$", re.ASCII)


def port_checked(address: str) -> str:
    """Give HOST:PORT back; raises `ValueError` for what is none."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ValueError(f"'{address}' is not HOST:PORT, for example 127.0.0.1:9108")
    if not 1 <= int(match["port"]) <= 65535:
        raise ValueError(f"port {match['port']} is outside 1 to 65535")
    return address


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CurveSettings(_Section):
    """The keys with which the stream is encrypted, and its subscribers are known."""

    server_key: Path
    """Secret key file of this daemon, readable to nobody but its owner."""
    allowed_keys: Path
    """Folder with the public key file of each program that may subscribe."""


class PublishSettings(_Section):
    """Where readings, metrics and the state can be had."""

    zmq_endpoint: str = "tcp://127.0.0.1:5556"
    replay_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Where missed messages are asked for; 0: the system chooses, and the heartbeat names it."""
    metrics_address: str = "127.0.0.1:9108"
    web_address: str = "127.0.0.1:8080"
    curve: CurveSettings | None = None

    @field_validator("zmq_endpoint")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        if value.startswith("ipc://") and len(value) > len("ipc://"):
            return value
        if not value.startswith("tcp://"):
            raise ValueError(f"'{value}' is not tcp://HOST:PORT or ipc://PATH")
        port_checked(value.removeprefix("tcp://"))
        return value

    @field_validator("metrics_address", "web_address")
    @classmethod
    def _address(cls, value: str) -> str:
        return port_checked(value)


def stays_here(endpoint: str) -> bool:
    """Say whether only programs of this computer can reach a ZeroMQ endpoint."""
    if not endpoint.startswith("tcp://"):
        return True
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_endpoint(settings: PublishSettings) -> None:
    """Raise `ConfigError` with key and remedy where strangers could subscribe."""
    if settings.curve is None and not stays_here(settings.zmq_endpoint):
        raise ConfigError(
            f"publish.zmq_endpoint: {settings.zmq_endpoint} can be reached from other computers, "
            "and nothing says who may subscribe; add [publish.curve] with server_key and "
            "allowed_keys (`icewatch keys make --help`), or keep to 127.0.0.1"
        )


def check_keys(config: Path, settings: PublishSettings) -> None:
    """Raise `ConfigError` with file, key and remedy where the key files cannot serve.

    Only for the user that the daemon runs as: others may not read its secret key.
    """
    if settings.curve is None:
        return
    from monitor.stream_keys import check_allowed, load_pair  # only where there are some

    try:
        load_pair(settings.curve.server_key, "publish.curve.server_key")
        check_allowed(settings.curve.allowed_keys, "publish.curve.allowed_keys")
    except ConfigError as error:
        raise ConfigError(f"{config}: {error}") from error


def with_absolute_keys(
    settings: PublishSettings, absolute: Callable[[str, Path], Path]
) -> PublishSettings:
    """Give the settings with both paths of the keys run through `absolute(key, path)`."""
    if settings.curve is None:
        return settings
    curve = CurveSettings(
        server_key=absolute("publish.curve.server_key", settings.curve.server_key),
        allowed_keys=absolute("publish.curve.allowed_keys", settings.curve.allowed_keys),
    )
    return settings.model_copy(update={"curve": curve})
