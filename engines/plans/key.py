"""What a plan was made of and for: a plan serves only where all of this is the same.

Frigate names its engines by the version of TensorRT alone and loads whatever lies there; cards of
the same name differ in ECC, cache and bus width. So everything counts.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from engines.bundle import GRAPH, MAX_BATCH, SIDE_STEP_PX, Bundle
from engines.errors import BundleError
from engines.plans.library import Library

HALF_GRAPH = "model_fp16.onnx"
RECIPE = 1
"""Raised whenever `engines.plans.build` builds otherwise, so that no older plan is taken."""

Precision = Literal["fp16", "fp32"]
GRAPHS: dict[Precision, str] = {"fp16": HALF_GRAPH, "fp32": GRAPH}

Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Count = Annotated[int, Field(ge=0, strict=True)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Capability = Annotated[str, Field(pattern=r"^[0-9]{1,2}\.[0-9]$")]
_NO_GRAPH = "0" * 64


class Frozen(BaseModel):
    """Part of a key or of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Card(Frozen):
    """A graphics card and its driver."""

    name: Text
    compute_capability: Capability
    driver: Text
    memory_bytes: Count = 0
    multiprocessors: Count = 0
    l2_bytes: Count = 0
    bus_bits: Count = 0
    error_correction: bool = False


class BuildOptions(Frozen):
    """How a plan is built; the defaults are what the daemon uses."""

    precision: Precision = "fp16"
    compute_capabilities: tuple[Capability, ...] = ()
    """Cards to build for ahead of time; none: the library's own choice."""
    max_batch: int = Field(default=MAX_BATCH, ge=1, le=MAX_BATCH, strict=True)
    least_side_px: int = Field(default=SIDE_STEP_PX, ge=1, strict=True)
    best_side_px: int = Field(default=608, ge=1, strict=True)
    """What a 4096-pixel camera gives at the usual sampling: fastest at this height and width."""
    most_side_px: int = Field(default=1536, ge=1, strict=True)

    @field_validator("compute_capabilities")
    @classmethod
    def _in_order(cls, named: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(named), key=lambda one: [int(part) for part in one.split(".")]))

    @model_validator(mode="after")
    def _check_sides(self) -> BuildOptions:
        sides = (self.least_side_px, self.best_side_px, self.most_side_px)
        if list(sides) != sorted(sides) or any(side % SIDE_STEP_PX for side in sides):
            raise ValueError(f"sides must rise, in steps of {SIDE_STEP_PX}")
        return self


class PlanKey(Frozen):
    """Everything that a plan depends on."""

    graph_sha256: Hash
    library: Text
    library_version: Text
    options: BuildOptions
    card: Card | None = None
    """None: built ahead of time, for no card in particular."""
    recipe: Count = RECIPE

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, in hexadecimal."""
        return hashlib.sha256(canonical(self.model_dump(mode="json"))).hexdigest()

    def without_graph(self) -> PlanKey:
        """Name what depends on machine and library alone: a timing cache."""
        return self.model_copy(update={"graph_sha256": _NO_GRAPH, "options": BuildOptions()})


def options_for(library: Library, card: Card) -> BuildOptions:
    """Choose how to build for a card that is here.

    Named, a card gets a plan of its own: smaller, and the only way for Turing (7.5), which the
    default of tensorrt_rtx leaves out. Cards that the library cannot name get that default.
    """
    named = card.compute_capability
    return BuildOptions(compute_capabilities=(named,) if named in library.capabilities else ())


def canonical(content: object) -> bytes:
    """Write JSON in the only way that hashes are taken of."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def plan_key(
    bundle: Bundle, library: Library, options: BuildOptions, card: Card | None = None
) -> PlanKey:
    """Make the key of the plan of a bundle; raises `BundleError` where it lacks the graph."""
    graph = graph_sha256(bundle, options.precision)
    return PlanKey(
        graph_sha256=graph,
        library=library.name,
        library_version=library.version,
        options=options,
        card=card,
    )


def graph_sha256(bundle: Bundle, precision: Precision) -> str:
    """Look up the hash of the graph that a plan is built of; raises `BundleError`."""
    found = bundle.manifest.files.get(GRAPHS[precision])
    if found is None:
        raise BundleError(
            f"Model bundle '{bundle.directory}' has no {GRAPHS[precision]}: export it again, or "
            f"build with precision {'fp32' if precision == 'fp16' else 'fp16'}."
        )
    return found.sha256
