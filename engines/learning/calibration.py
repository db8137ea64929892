"""What a run is calibrated to: the cut of its mask, and from areas to the ice percentage."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from engines.calibrations import Calibration

FILE = "calibration.json"
_CALIBRATION: TypeAdapter[Calibration] = TypeAdapter(Calibration)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Cut of the mask, on calibrated probabilities, and everything after it."""

    threshold: float
    calibration: Calibration

    def write(self, run: Path) -> None:
        """Write beside the checkpoint of a run."""
        content = {"threshold": self.threshold, "calibration": self.calibration.model_dump()}
        (run / FILE).write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, run: Path) -> Calibrated:
        """Read what `write` wrote."""
        content = json.loads((run / FILE).read_text())
        return cls(content["threshold"], _CALIBRATION.validate_python(content["calibration"]))
