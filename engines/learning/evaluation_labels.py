"""Labels of real pictures: from a `labels.csv`, or from a `marks.json` with outlined grains."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from engines.learning.evaluation import EvaluationError

LABELS, MARKS = "labels.csv", "marks.json"
CRYSTALLINE = "crystalline"
KNOWN = (CRYSTALLINE, "vitreous", "great", "decent", "contamination", "no ice", "other")


class Grain(NamedTuple):
    """A strong grain outlined by eye: an ellipse in pixels from the upper left as displayed."""

    x: float
    y: float
    rx: float
    ry: float


def read_labels(folder: Path, files: Collection[str]) -> dict[str, str]:
    """Read the label of each picture of a folder; {} where it has none.

    Raises EvaluationError for labels that are not known and files that are not there.
    """
    if (folder / LABELS).exists():
        source, labels = folder / LABELS, _of_csv(folder / LABELS)
    elif (folder / MARKS).exists():
        source, labels = folder / MARKS, _of_marks(folder / MARKS)
    else:
        return {}
    for file, label in labels.items():
        if file not in files:
            raise EvaluationError(f"{source} names '{file}', and {folder} holds no such picture.")
        if label not in KNOWN:
            near = get_close_matches(label, KNOWN, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(KNOWN)}."
            raise EvaluationError(f"{source}: '{file}' has the unknown label '{label}'; {hint}")
    return labels


def _of_csv(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{path} cannot be read: {error}.") from error
    labels: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        file, label = (row.get("file") or "").strip(), (row.get("label") or "").strip()
        if not file or not label:
            raise EvaluationError(
                f"{path}, line {number}: a line must be file,label below a first line that says so."
            )
        if file in labels:
            raise EvaluationError(f"{path}, line {number}: '{file}' is named twice; keep one.")
        labels[file] = label.lower()
    return labels


def _of_marks(path: Path) -> dict[str, str]:
    """Read the class that the authors gave; what follows a comma is a remark."""
    classes = {file: label.partition(",")[0].strip() for file, (label, _) in _marks(path).items()}
    return {file: label for file, label in classes.items() if label}


def read_grains(folder: Path) -> dict[str, tuple[Grain, ...]]:
    """Read the outlines of strong grains of each picture from a `marks.json`, if there is one."""
    path = folder / MARKS
    return {file: grains for file, (_, grains) in _marks(path).items()} if path.exists() else {}


def _marks(path: Path) -> Mapping[str, tuple[str, tuple[Grain, ...]]]:
    try:
        images = json.loads(path.read_text(encoding="utf-8"))["images"]
        return {
            str(one["file"]): (
                str(one.get("authors_class", "")).lower(),
                tuple(Grain(*(float(value) for value in grain)) for grain in one["strong"]),
            )
            for one in images
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f"{path} cannot be read as outlines of grains ({type(error).__name__}: {error})."
        ) from error
