"""What specimens hold: how often each kind of distractor and of cell content is drawn.

Numbers are expected draws: below 1 a probability, above 1 several passes.
"""

from __future__ import annotations

from collections.abc import Mapping

LAMELLA: Mapping[str, float] = {
    "contamination": 0.55,
    "contamination_cluster": 0.35,
    "giant_ball": 0.08,
    "frost": 0.2,
    "leafy_frost": 0.06,
    "ethane": 0.15,
    "iced_ethane": 0.06,
    "cloud": 0.3,
    "mottle": 0.15,
    "soft_pairs": 0.15,
    "smears": 0.1,
    "exposed_discs": 0.06,
    "bubbles": 0.1,
    "beam_damage": 0.12,
    "gold_beads": 0.06,
    "touching_beads": 0.06,
    "platinum": 0.15,
    "crack": 0.1,
    "vacuum_edge": 0.1,
    "dark_corner": 0.08,
    "metal_edge": 0.03,
    "grid_bar": 0.08,
    "soft_ice": 0.12,
    "redeposition": 0.15,
    "droplets": 0.08,
    "diffracting_surface": 0.2,
    "ferns": 0.05,
    "ribbons": 0.08,
    "striped_bodies": 0.08,
}
"""On a milled lamella."""

FILM: Mapping[str, float] = {
    "contamination": 0.55,
    "contamination_cluster": 0.3,
    "giant_ball": 0.1,
    "droplets": 0.35,
    "frost": 0.2,
    "leafy_frost": 0.15,
    "ethane": 0.08,
    "iced_ethane": 0.03,
    "cloud": 0.45,
    "mottle": 0.25,
    "soft_pairs": 0.25,
    "smears": 0.3,
    "exposed_discs": 0.2,
    "gold_beads": 0.2,
    "touching_beads": 0.25,
    "carbon_hole": 0.4,
    "hole_map": 0.18,
    "carbon_film": 0.12,
    "metal_edge": 0.1,
    "dark_corner": 0.12,
    "dendrites": 0.2,
    "crack": 0.05,
    "vacuum_edge": 0.04,
    "bubbles": 0.06,
    "beam_damage": 0.08,
    "diffracting_surface": 0.25,
    "soft_ice": 0.08,
    "ferns": 0.12,
    "ribbons": 0.1,
    "striped_bodies": 0.04,
}
"""On a plunge-frozen film."""

CELL: Mapping[str, float] = {
    "ribosomes": 0.6,
    "membranes": 0.5,
    "vesicles": 0.4,
    "granules": 0.3,
    "organelles": 0.35,
    "myelin": 0.12,
    "thylakoids": 0.0,
    "axoneme": 0.05,
    "envelope": 0.1,
    "wall": 0.03,
    "lipid": 0.2,
    "starch": 0.03,
    "filaments": 0.25,
}
"""A cell of no particular kind."""

FILM_CONTENT: Mapping[str, float] = {
    "capsids": 0.35,
    "particles": 0.65,
    "vesicles": 0.3,
    "filaments": 0.15,
    "membranes": 0.06,
    "ribosomes": 0.1,
    "granules": 0.05,
}
"""Single particles, viruses and vesicles in a film."""


def merged(base: Mapping[str, float], **changes: float) -> dict[str, float]:
    """Return a copy with some numbers changed or added."""
    return {**base, **changes}


CHLAMYDOMONAS = merged(
    CELL,
    thylakoids=0.7,
    ribosomes=0.9,
    granules=0.3,
    myelin=0.0,
    organelles=0.6,
    pyrenoid=0.25,
    starch=0.05,
    wall=0.1,
    axoneme=0.02,
)
"""A green alga: thylakoids, a pyrenoid with starch around it, mitochondria."""
