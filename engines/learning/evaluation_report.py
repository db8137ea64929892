"""The folder of an evaluation: `report.md`, `figures.json`, and the pictures that they tell of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from engines.learning.evaluation_tables import Table, as_markdown
from engines.segmenter import Segmenter

SCHEMA = "icewatch.evaluation/1"
REPORT, FIGURES = "report.md", "figures.json"


@dataclass(slots=True)
class Report:
    """What came of an evaluation."""

    kind: str
    """simulated, pictures or annotated."""
    model: Mapping[str, str]
    """`name` and `version` of the bundle, and `backend`."""
    settings: Mapping[str, Any]
    """What was asked for."""
    figures: dict[str, Any] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)
    """File name in the folder, and what it shows."""
    notes: list[str] = field(default_factory=list)

    def content(self) -> dict[str, Any]:
        """Everything as plain objects for JSON; what is not a finite number is null."""
        about = {
            "schema": SCHEMA,
            "kind": self.kind,
            "model": dict(self.model),
            "settings": dict(self.settings),
        }
        whole: dict[str, Any] = _plain({**about, **self.figures, "notes": self.notes})
        return whole

    def write(self, out: Path) -> None:
        """Write report and figures to a folder; raises `OSError`."""
        (out / FIGURES).write_text(json.dumps(self.content(), indent=1, allow_nan=False) + "\n")
        (out / REPORT).write_text(self._markdown(), encoding="utf-8")

    def _markdown(self) -> str:
        model = f"{self.model['name']} {self.model['version']} on {self.model['backend']}"
        lines = [f"# Evaluation of {model}", ""]
        lines += [f"- {name}: {_told(value)}" for name, value in self.settings.items()]
        lines += [f"- {note}" for note in self.notes]
        parts = ["\n".join(lines) + "\n", *(as_markdown(table) for table in self.tables)]
        parts += [f"![{shows}]({name})\n\n{shows}\n" for name, shows in self.pictures]
        return "\n".join(parts)


def _told(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{value}`"


def _plain(value: Any) -> Any:
    """Turn dataclasses and tuples into objects and lists, and NaN and infinity into None."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def model_of(segmenter: Segmenter) -> dict[str, str]:
    """Say which bundle on which backend is evaluated."""
    return {
        "name": segmenter.bundle_name,
        "version": segmenter.bundle_version,
        "backend": segmenter.backend_name,
    }
