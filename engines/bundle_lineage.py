"""What a bundle was made from, and what its own held-out tilts say of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.bundle import Label, Manifest
from engines.errors import BundleError

PARENT, HELD_OUT = "parent", "held_out"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Parent(_Part):
    """The bundle that another one was made from."""

    name: Label
    version: Label
    graph_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Figures(_Part):
    """How well a bundle reads tilts that it was not trained on."""

    mean_absolute_error: Annotated[float, Field(ge=0.0, le=100.0)]
    """Percentage points."""
    iou: Annotated[float, Field(ge=0.0, le=1.0)]
    tilts: Annotated[int, Field(ge=1)]


class HeldOut(_Part):
    """The same held-out tilts, read by the parent and by the bundle itself."""

    before: Figures
    after: Figures

    @property
    def is_worse(self) -> bool:
        """Whether the percentage became worse, or stayed and the masks became worse."""
        before, after = self.before, self.after
        one = (after.mean_absolute_error, -after.iou)
        return one > (before.mean_absolute_error, -before.iou)


class Lineage(_Part):
    """What the training record of a manifest tells; each part may be missing."""

    parent: Parent | None = None
    held_out: HeldOut | None = None


def lineage_of(manifest: Manifest) -> Lineage:
    """Read where a bundle comes from; raises `BundleError` where that makes no sense."""
    known = {key: manifest.training.get(key) for key in (PARENT, HELD_OUT)}
    try:
        return Lineage.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(("training", *(str(part) for part in first["loc"])))
        raise BundleError(
            f"The manifest of {manifest.name} {manifest.version}: {key}: {first['msg']}; make the "
            "bundle again."
        ) from error


def refuse_worse(manifest: Manifest) -> None:
    """Raise `BundleError` for a bundle that reads worse than what it was made from."""
    lineage = lineage_of(manifest)
    found = lineage.held_out
    if found is None or not found.is_worse:
        return
    before, after = found.before, found.after
    parent = lineage.parent
    than = f"{parent.name} {parent.version}" if parent else "what it was made from"
    raise BundleError(
        f"{manifest.name} {manifest.version} reads held-out tilts worse than {than}: mean error "
        f"{after.mean_absolute_error:.2f} instead of {before.mean_absolute_error:.2f} percentage "
        f"points, overlap {after.iou:.2f} instead of {before.iou:.2f}, over {after.tilts} tilts; "
        "annotate more tilts and tune again, or say --even-if-worse."
    )
