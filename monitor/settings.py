"""One TOML file in, frozen settings out; whatever is wrong is said in one line with its key."""

from __future__ import annotations

import difflib
import errno
import re
import stat
import tomllib
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from monitor.errors import ConfigError
from monitor.policies import MeanOverTiltsSettings, PolicySettings
from monitor.publish_settings import PublishSettings, check_endpoint, with_absolute_keys


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GainSettings(_Section):
    """How movies that were saved without gain correction are corrected; by default they are not."""

    reference: Path | None = None
    """The gain reference (MRC or TIFF); it may be replaced while the daemon runs."""
    operation: Literal["multiply", "divide"] = "multiply"
    rotate_deg: Literal[0, 90, 180, 270] = 0
    """Counter-clockwise turn of the reference, before any flip."""
    flip: Literal["none", "rows", "columns"] = "none"
    """Which order of the reference is turned round: `rows` swaps top and bottom."""


class CustomSettings(_Section):
    """How files are named where no microscope program did (`layout = "custom"`)."""

    pattern: str | None = None
    """Regular expression for the path below the directory, with named groups: `series` and `angle`,
    and, if wanted, `number`, `time`, `lamella`, `session` and `grid`."""
    table: Path | None = None
    """Text file with a line `name,angle` for each image; it may grow while the daemon runs."""


class AcquisitionSettings(_Section):
    """Where tilts land; this directory is only ever read."""

    directory: Path
    watch: Literal["auto", "events", "poll"] = "auto"
    poll_interval_s: Annotated[float, Field(gt=0.0, le=600.0)] = 2.0
    layout: Literal["auto", "serialem", "pacetomo", "tomography5", "custom"] = "auto"
    prefer: Literal["stack", "movie"] = "stack"
    """Which is read where one exposure lands as section of a stack and as movie."""
    session_gap_h: Annotated[float, Field(gt=0.0, le=8760.0)] = 12.0
    read_rate_mb_per_s: Annotated[float, Field(gt=0.0, le=1e5)] = 200.0
    """Pixels are read no faster than this on average, so that the microscope's disk stays free."""
    gain: GainSettings = GainSettings()
    custom: CustomSettings = CustomSettings()


class ModelSettings(_Section):
    """Which network reads the tilts, and what it runs on."""

    bundle: str = "default"
    backend: Literal["auto", "tensorrt", "openvino", "onnxruntime"] = "auto"
    prepared_engines: Path | None = None
    """Folder of TensorRT plans that `icewatch engine build --out` made; only ever read."""


class VerdictSettings(_Section):
    """When a lamella is flagged, and whether the flag may act."""

    mode: Literal["advise", "confirm", "act"] = "advise"
    skip_above_ice_percent: Annotated[float, Field(gt=0.0, le=100.0)] = 10.0
    directory: Path | None = None
    policy: PolicySettings = MeanOverTiltsSettings()


class StateSettings(_Section):
    """Where the daemon keeps its journal, and how much of the past."""

    directory: Path
    keep_days: Annotated[float, Field(gt=0.0, le=36500.0)] = 180.0
    """Sessions, overlays and engine plans older than this are removed; the running one never."""
    max_size_gb: Annotated[float, Field(gt=0.0, le=1e6)] = 20.0
    """Above this the oldest go first (GB of 10^9 bytes)."""


class Settings(_Section):
    """Everything that one daemon is told."""

    microscope: Annotated[str, Field(min_length=1, max_length=100)] = "microscope"
    acquisition: AcquisitionSettings
    model: ModelSettings = ModelSettings()
    publish: PublishSettings = PublishSettings()
    verdict: VerdictSettings = VerdictSettings()
    state: StateSettings

    @field_validator("microscope")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("holds characters that cannot be printed")
        return value

    @property
    def verdict_directory(self) -> Path:
        """The only place besides the state directory that is written."""
        return self.verdict.directory or self.state.directory / "verdicts"


def load(path: Path) -> Settings:
    """Read a configuration file and check all that can be checked without starting.

    Relative paths count from the folder of the file. Raises `ConfigError` with one line that
    names the file, the key and the remedy.
    """
    settings = parse(path)
    check_places(settings, path)
    return settings


def parse(path: Path) -> Settings:
    """Read a configuration file, and look at no other file or folder; raises `ConfigError`."""
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file; give --config a TOML file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}); give a readable UTF-8 file"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_sentence(error.errors()[0])}") from error
    return _absolute(settings, path)


def check_places(settings: Settings, path: Path) -> None:
    """Look at the files and folders that the settings name; raises `ConfigError`."""
    _check_directories(settings, path)
    _check_acquisition(settings.acquisition, path)
    try:
        check_endpoint(settings.publish)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _check_acquisition(settings: AcquisitionSettings, path: Path) -> None:
    plain = settings.layout != "custom" and settings.custom == CustomSettings()
    if plain and settings.gain.reference is None:
        return
    from monitor.acquisition_checks import check_acquisition  # it reads files as the sources do

    try:
        check_acquisition(settings)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _absolute(settings: Settings, path: Path) -> Settings:
    def absolute(key: str, named: Path, what: str = "directory") -> Path:
        try:
            return path.resolve().parent / named.expanduser()
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"{path}: {key}: '{named}' is no {what}: {error}") from error

    acquisition = settings.acquisition
    gain, custom = acquisition.gain, acquisition.custom
    if gain.reference is not None:
        reference = absolute("acquisition.gain.reference", gain.reference, "file")
        gain = gain.model_copy(update={"reference": reference})
    if custom.table is not None:
        table = absolute("acquisition.custom.table", custom.table, "file")
        custom = custom.model_copy(update={"table": table})
    directory = absolute("acquisition.directory", acquisition.directory)
    acquisition = acquisition.model_copy(
        update={"directory": directory, "gain": gain, "custom": custom}
    )
    state = settings.state.model_copy(
        update={"directory": absolute("state.directory", settings.state.directory)}
    )
    verdict = settings.verdict
    if verdict.directory is not None:
        directory = absolute("verdict.directory", verdict.directory)
        verdict = verdict.model_copy(update={"directory": directory})
    publish = with_absolute_keys(settings.publish, partial(absolute, what="file"))
    return settings.model_copy(
        update={
            "acquisition": acquisition,
            "publish": publish,
            "state": state,
            "verdict": verdict,
        }
    )


def _check_directories(settings: Settings, path: Path) -> None:
    acquisition = settings.acquisition.directory
    written = {
        "state.directory": settings.state.directory,
        "verdict.directory": settings.verdict_directory,
    }
    for key, directory in {"acquisition.directory": acquisition, **written}.items():
        if _is_other(f"{path}: {key}", directory):
            raise ConfigError(f"{path}: {key}: '{directory}' is a file; name a directory")
    endpoint = settings.publish.zmq_endpoint
    if endpoint.startswith("ipc://"):
        written["publish.zmq_endpoint"] = Path(endpoint.removeprefix("ipc://"))
    for key, directory in written.items():
        if directory.resolve().is_relative_to(acquisition.resolve()):  # links followed
            raise ConfigError(
                f"{path}: {key}: '{directory}' lies below acquisition.directory, where icewatch "
                "never writes; name a directory elsewhere"
            )


def _is_other(key: str, directory: Path) -> bool:
    """Whether something is there that is not a directory.

    What is not there or may not be looked at now, a share say, may come; a name that can never
    be a directory is refused.
    """
    try:
        directory.resolve()
        return not stat.S_ISDIR(directory.stat().st_mode)
    except (FileNotFoundError, PermissionError):
        return False
    except NotADirectoryError:
        return True
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            raise ConfigError(f"{key}: '{directory}' is no directory: {error.strerror}") from error
        return False
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"{key}: {str(directory)!r} is no directory: {error}") from error


def _sentence(error: ErrorDetails) -> str:
    # Pydantic puts the tag of a union and "function-after[..]" into the location: not for people.
    location = [str(part) for part in error["loc"]]
    key = ".".join(part for part in location if re.fullmatch(r"[A-Za-z0-9_-]+", part))
    if error["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(location[-1], _keys_at(location[:-1]), 1, 0.5)
        hint = f"did you mean '{nearest[0]}'?" if nearest else "remove it"
        return f"{key}: unknown key; {hint}"
    if error["type"] == "missing":
        return f"{key}: is missing; add it"
    message = error["msg"].removeprefix("Value error, ")
    given = error["input"]
    shown = "" if isinstance(given, dict | list) or str(given) in message else f" (given: {given})"
    return f"{key}: {message[0].lower()}{message[1:]}{shown}"


def _keys_at(location: list[str]) -> list[str]:
    model: Any = Settings
    for part in location:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            break
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        model = _model_in(annotation) or model
    return list(model.model_fields) if hasattr(model, "model_fields") else []


def _model_in(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)
    return (
        annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    )
