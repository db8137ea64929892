"""What labels mean: the ones that icewatch offers, and what other words people use for them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from engines.annotation.model import AnnotationError, Annotations


class Meaning(StrEnum):
    """What an area with a label says."""

    ICE = "ice"
    NOT_ICE = "not ice"
    """Looks like ice and is none."""
    IGNORE = "ignore"
    """Says nothing: the area is left out."""


@dataclass(frozen=True, slots=True)
class Label:
    """A label that icewatch offers for drawing."""

    name: str
    meaning: Meaning
    color: str
    """As CVAT writes colours."""
    explanation: str


LABELS = (
    Label("ice", Meaning.ICE, "#ff8c28", "crystalline ice, whichever phase it is"),
    Label("hexagonal", Meaning.ICE, "#ff5a3c", "crystalline ice that you know to be hexagonal"),
    Label("cubic", Meaning.ICE, "#ffd23c", "crystalline ice that you know to be cubic"),
    Label(
        "stacking_disordered",
        Meaning.ICE,
        "#e664c8",
        "crystalline ice that you know to be stacking-disordered",
    ),
    Label(
        "distractor",
        Meaning.NOT_ICE,
        "#3cb4ff",
        "looks like ice and is none: frost on the surface, contamination, ethane (optional)",
    ),
    Label("ignore", Meaning.IGNORE, "#969696", "left out: you cannot tell what it is"),
)
"""Colours: warm is ice, cold is none."""

_PHASES = r"hexagonal|cubic|stacking disordered"
_WORDS = {
    Meaning.ICE: re.compile(
        r"(crystalline )?ice( crystals?)?|crystals?|crystalline|"
        rf"({_PHASES})( ice)?|ice ({_PHASES})"
    ),
    Meaning.NOT_ICE: re.compile(
        r"distractors?|contaminations?|frost|ethane|background|(no|not|non) ice|no|none|vitreous"
        r"( ice)?"
    ),
    Meaning.IGNORE: re.compile(r"ignored?|unsure|uncertain|unknown|left out|void"),
}


def meaning_of(label: str) -> Meaning | None:
    """Say what a label means by its words; None where they do not tell."""
    words = re.sub(r"[^a-z]+", " ", label.lower()).strip()
    found = (meaning for meaning, known in _WORDS.items() if known.fullmatch(words))
    return next(found, None)


@dataclass(frozen=True, slots=True)
class Meanings:
    """The labels of an export by what they mean."""

    ice: frozenset[str]
    not_ice: frozenset[str] = frozenset()
    ignore: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    """Whatever has one of these counts as no ice."""


def meanings_in(annotations: Annotations, ice_labels: Collection[str] = ()) -> Meanings:
    """Say what the labels of an export mean.

    Ice is what `ice_labels` name, else the only label unless its words say otherwise, else those
    whose words say so. Raises AnnotationError for a label that the export does not have, and
    where none can be told to mean ice.
    """
    have = ", ".join(f"'{label}'" for label in annotations.labels) or "none"
    for label in ice_labels:
        if label not in annotations.labels:
            raise AnnotationError(
                f"'{annotations.source}' has no label '{label}'; its labels are {have}."
            )
    told = {label: meaning_of(label) for label in annotations.labels}
    if ice_labels:
        told |= {name: None for name, meaning in told.items() if meaning is Meaning.ICE}
        told |= dict.fromkeys(ice_labels, Meaning.ICE)
    elif list(told.values()) == [None]:
        told = dict.fromkeys(told, Meaning.ICE)
    by_meaning = {
        meaning: frozenset(name for name, found in told.items() if found is meaning)
        for meaning in (*Meaning, None)
    }
    if told and not by_meaning[Meaning.ICE]:
        raise AnnotationError(
            f"Which labels of '{annotations.source}' mean ice cannot be told ({have}); name them "
            "with --ice-label."
        )
    return Meanings(
        by_meaning[Meaning.ICE],
        by_meaning[Meaning.NOT_ICE],
        by_meaning[Meaning.IGNORE],
        by_meaning[None],
    )


def refuse_unknown(annotations: Annotations, meanings: Meanings) -> None:
    """Raise AnnotationError where something was drawn with a label of unknown meaning."""
    drawn = {shape.label for image in annotations.images for shape in image.shapes}
    offered = [one.name for one in LABELS]
    for label in sorted(drawn & meanings.unknown):
        nearest = difflib.get_close_matches(label.lower(), offered, 1, 0.7)
        hint = f" (did you mean '{nearest[0]}'?)" if nearest else ""
        raise AnnotationError(
            f"'{annotations.source}' has areas labelled '{label}', which is none of "
            f"{', '.join(offered)}{hint}; rename the label in CVAT, or name those that mean ice "
            "with --ice-label."
        )
