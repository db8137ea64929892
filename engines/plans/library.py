"""The TensorRT library that is there: `tensorrt` or `tensorrt_rtx`, behind one face.

Both have the same classes. `tensorrt` builds for the card that is in the machine; `tensorrt_rtx`
builds without any card, for the compute capabilities that are named, and has no timing cache
(since 1.2 its calls do nothing):
https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html
"""

from __future__ import annotations

import functools
import importlib
import re
from collections import deque
from dataclasses import dataclass
from typing import Any

from engines.plans.errors import PlanError

NAMES = ("tensorrt", "tensorrt_rtx")
"""In the order in which they are tried: the first knows all data-centre cards."""

_PACKAGES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
# Strong typing and progress monitors; compute capabilities as a list.
_OLDEST = {"tensorrt": (10, 1), "tensorrt_rtx": (1, 2)}
_KEPT_MESSAGES = 50
_CAPABILITY = re.compile(r"[0-9]{1,2}\.[0-9]")
_LOAD_FAILURES = (ImportError, OSError, RuntimeError, AttributeError)


@dataclass(frozen=True, slots=True, eq=False)
class Library:
    """A library that was loaded, with the one logger that it may be given."""

    name: str
    version: str
    module: Any
    logger: Any
    """For every builder and runtime: the library keeps the first logger that it sees."""
    messages: deque[str]
    """What the library complained of last (errors alone), oldest first."""

    @property
    def label(self) -> str:
        """Name and version, for sentences."""
        return f"{self.name} {self.version}"

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities it builds for without the card; none: for the card here alone."""
        members = getattr(self.module, "ComputeCapability", None)
        names = getattr(members, "__members__", {})
        found = [name[2:] for name in names if re.fullmatch(r"SM[0-9]{2,3}", name)]
        return tuple(f"{digits[:-1]}.{digits[-1]}" for digits in sorted(found, key=int))

    @property
    def keeps_timings(self) -> bool:
        """Whether measurements of one build make the next one faster."""
        return self.name == "tensorrt"

    def capability(self, named: str) -> Any:
        """Give the library's own word for a compute capability such as 8.6; raises `PlanError`."""
        if not _CAPABILITY.fullmatch(named):
            raise PlanError(
                f"{named!r} is no compute capability: write it as 8.6 (nvidia-smi "
                "--query-gpu=compute_cap --format=csv prints that of a card).",
                "capability",
            )
        known = self.capabilities
        if not known:
            raise PlanError(
                f"{self.label} builds for the card in this machine alone: leave the compute "
                "capability out and build on the microscope computer, or build with tensorrt_rtx.",
                "capability",
            )
        if named not in known:
            raise PlanError(
                f"{self.label} cannot build for compute capability {named}, only for "
                f"{', '.join(known)}: use the package tensorrt on the machine with that card.",
                "capability",
            )
        return self.module.ComputeCapability.__members__["SM" + named.replace(".", "")]


def find(name: str | None = None) -> Library:
    """Load the library `name`, or the first that is there; raises `PlanError`.

    Where none works, a library that is there but broken or too old is what is complained of.
    """
    if name is not None and name not in NAMES:
        raise PlanError(
            f"There is no library '{name}': name {' or '.join(NAMES)}.", "library_missing"
        )
    failures = []
    for one in [name] if name else NAMES:
        try:
            return _load(one)
        except PlanError as error:
            failures.append(error)
    present = [error for error in failures if error.reason != "library_missing"]
    if name or present:
        raise (present or failures)[0]
    raise PlanError(
        "No TensorRT library is installed: pip install tensorrt (any NVIDIA card) or tensorrt-rtx "
        "(RTX cards) into icewatch's environment.",
        "library_missing",
    )


@functools.cache
def _load(name: str) -> Library:
    try:
        module: Any = importlib.import_module(name)
        version = str(module.__version__)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise PlanError(
                f"The library {name} is not installed: pip install {_PACKAGES[name]} into "
                "icewatch's environment.",
                "library_missing",
            ) from error
        raise _broken(name, error) from error
    except _LOAD_FAILURES as error:
        raise _broken(name, error) from error
    oldest = _OLDEST[name]
    if numbers(version)[: len(oldest)] < oldest:
        raise PlanError(
            f"{name} {version} is too old, {'.'.join(map(str, oldest))} or newer is needed: pip "
            f"install --upgrade {_PACKAGES[name]}.",
            "library_old",
        )
    messages: deque[str] = deque(maxlen=_KEPT_MESSAGES)
    try:
        return Library(name, version, module, _logger(module, messages), messages)
    except _LOAD_FAILURES as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> PlanError:
    return PlanError(
        f"The library {name} is installed and cannot be loaded ({first_line(error)}): pip install "
        f"--force-reinstall {_PACKAGES[name]}.",
        "library_broken",
    )


def _logger(module: Any, messages: deque[str]) -> Any:
    """Make a logger that keeps errors; by default the library writes them on the terminal."""
    worst = module.ILogger.Severity.ERROR

    class Listener(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if severity <= worst:
                messages.append(text)

    return Listener()


def numbers(version: str) -> tuple[int, ...]:
    """Read the numbers of a version, most important first."""
    return tuple(int(part) for part in re.findall(r"[0-9]+", version))


def first_line(error: object, most: int = 300) -> str:
    """Cut what a library says down to what fits into a sentence."""
    return str(error).strip().partition("\n")[0].strip()[:most].rstrip(".")
