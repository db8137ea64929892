"""One magnification at a time: ice of one sampling is not to be learned from that of another."""

from __future__ import annotations

from collections.abc import Iterable

SAME_SIZE = 0.02
"""Pixel sizes that differ by less are those of one magnification."""


def differ(sizes_angstrom: Iterable[float]) -> bool:
    """Say whether these are pixel sizes of more than one magnification."""
    sizes = list(sizes_angstrom)
    return bool(sizes) and max(sizes) > min(sizes) * (1.0 + SAME_SIZE)


def most_common(sizes_angstrom: Iterable[float]) -> tuple[float, float] | None:
    """Give the least and the largest pixel size of the magnification that most have."""
    sizes = sorted(sizes_angstrom)
    if not sizes:
        return None
    groups = [[one for one in sizes if low <= one <= low * (1.0 + SAME_SIZE)] for low in {*sizes}]
    largest = max(groups, key=lambda group: (len(group), -group[0]))
    return largest[0], largest[-1]
