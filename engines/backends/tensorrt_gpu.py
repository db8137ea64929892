"""TensorRT on an NVIDIA GPU, for what runs once: the plan is built first if there is none yet.

The daemon does not wait for that: `monitor.engine` serves on the CPU meanwhile.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from engines.backends.protocol import Backend
from engines.bundle import Bundle


class TensorRtSettings(BaseModel):
    """How TensorRT is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tensorrt"] = "tensorrt"
    cache: Path | None = None
    """Private folder of plans; none: `icewatch/engines` in the user's cache."""

    def build(self, bundle: Bundle) -> Backend:
        """Load or build a plan, and prove it on known tilts; raises `BackendError`."""
        from engines.gpu.installation import Site

        site = Site.find(bundle, self.cache or users_cache())
        plan = site.plan() or site.build()
        return site.open(plan)


def users_cache() -> Path:
    """Tell where plans are kept for what a user runs by hand."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "icewatch" / "engines"
