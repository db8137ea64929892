"""The exposures that the mdoc of a growing stack tells of, each with an identity that lasts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from monitor.model import Landed, TiltId
from monitor.sources.complete import not_yet
from monitor.sources.exposure import exposure_id
from monitor.sources.mdoc import Mdoc, MdocSection
from monitor.sources.naming import Place, parse_movie_name
from monitor.sources.protocol import NotMine


@dataclass(frozen=True, slots=True)
class Exposure:
    """One complete section of an mdoc."""

    said: MdocSection
    id: TiltId
    order: int
    """Rank by the microscope's clock; by number where it is not known for all."""


def of_stack(landed: Landed, mdoc: Mdoc | None) -> Mdoc:
    """Keep what an mdoc says on sections; raises where it is none, or not of a tilt series."""
    name = landed.path.name
    if mdoc is None and parse_movie_name(name).angle_deg is not None:
        raise NotMine(f"{name!r} is named like a movie", "movie")
    if mdoc is None or not mdoc.sections:
        raise not_yet(
            landed,
            f"{name!r} has no mdoc and no tilt angle in its name: no tilt; have SerialEM save one",
            "no_angle",
        )
    stack_sections = [one for one in mdoc.sections if one.kind == "ZValue"]
    if not stack_sections or _is_single_tilt(name, stack_sections):
        raise NotMine(f"the mdoc of {name!r} is that of a movie", "movie")
    if mdoc.is_montage:
        raise not_yet(landed, f"{name!r} is a map made of pieces, not a tilt series", "map")
    return replace(mdoc, sections=tuple(stack_sections))


def _is_single_tilt(name: str, sections: list[MdocSection]) -> bool:
    """Whether this is one tilt saved as a stack of its own, named after its angle."""
    named, said = parse_movie_name(name).angle_deg, sections[0].tilt_angle_deg
    agree = named is not None and said is not None and abs(named - said) < 1.0
    return len(sections) == 1 and agree


def exposures_of(mdoc: Mdoc, where: Place) -> list[Exposure]:
    """List the complete exposures in acquisition order.

    Should two have the same angle and the same second, all but the first in the file carry a
    running number: sorting may swap their names, but makes no new ones.
    """
    complete = [one for one in mdoc.sections if one.complete]
    dated = all(one.acquired_at for one in complete)
    seen: Counter[TiltId] = Counter()
    named: list[tuple[MdocSection, TiltId]] = []
    for said in complete:
        tilt_id = exposure_id(where, said)
        seen[tilt_id] += 1
        if seen[tilt_id] > 1:
            again = (
                f"{tilt_id.fallback}#{seen[tilt_id]}" if tilt_id.fallback else str(seen[tilt_id])
            )
            tilt_id = replace(tilt_id, fallback=again)
        named.append((said, tilt_id))
    named.sort(key=lambda one: (one[0].acquired_at or "" if dated else "", one[0].z_value))
    return [Exposure(said, tilt_id, order) for order, (said, tilt_id) in enumerate(named)]
