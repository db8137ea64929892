"""Records the session that `icewatch demo` replays: `python -m engines.simulation.recording OUT`.

Each lamella is one simulated series, kept noise-free as 8-bit pictures one below the other; the
electrons are drawn on replay. A lamella is taken from the first seed that shows what it stands
for: an icy one at least `ICY_PERCENT` of ice in the mean over its tilts, the others none.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from engines.simulation.canvas import Distractor
from engines.simulation.families import FAMILIES
from engines.simulation.parameters import SceneChoices
from engines.simulation.series import SimulatedSeries, simulate_series

ANGLES_DEG = (0.0, 3.0, -3.0, 6.0, -6.0, 9.0, -9.0)
SIZE_PX = 288
PIXEL_SIZE_ANGSTROM = 13.5
SKIP_ABOVE_ICE_PERCENT = 4.0
ICY_PERCENT = 14.0
DECOY_SHARE = (0.1, 0.5)
FIRST_SEED = 77_000_000
"""Far from the seeds of every training, calibration and test set."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One lamella of the session: what it shows and how it is drawn."""

    name: str
    title: str
    family: str
    choices: SceneChoices
    decoy: Distractor | None = None
    """What must cover a share of every tilt within `DECOY_SHARE`."""

    @property
    def icy(self) -> bool:
        """Whether it is to be flagged."""
        return self.choices.ice_kind != "none"


_CELL = {"ribosomes": 1.0, "membranes": 1.0, "vesicles": 0.5}
_QUIET = {"contamination": 0.3}


def _icy(kind: str, size_angstrom: float | None = None, boost: float = 0.35) -> SceneChoices:
    return SceneChoices(
        ice_kind=kind,
        ice_layout="patches",
        ice_abundance=0.9,
        bragg_boost=boost,
        grain_size_angstrom=size_angstrom,
        distractors=_QUIET,
        biology=_CELL,
        dose_e_per_A2=3.5,
        aperture_blocks_ice=False,
    )


def _clean(distractors: dict[str, float], biology: dict[str, float] | None = None) -> SceneChoices:
    return SceneChoices(
        ice_kind="none", distractors=distractors, biology=biology or _CELL, dose_e_per_A2=3.5
    )


_DIRTY = {"contamination": 1.0, "contamination_cluster": 1.0}
_STRIPES = {"thylakoids": 1.0, "ribosomes": 1.0, "membranes": 0.5}
SESSION = (
    Wanted("L1_clean", "clean cell", "f11166", _clean({})),
    Wanted("L2_hexagonal", "hexagonal ice", "f10987", _icy("hexagonal", 1500.0)),
    Wanted(
        "L3_contamination",
        "surface contamination",
        "f11221",
        _clean(_DIRTY),
        Distractor.CONTAMINATION,
    ),
    Wanted("L4_cubic", "cubic ice", "f11166", _icy("cubic", 450.0, 0.8)),
    Wanted("L5_ethane", "ethane residue", "f10987", _clean({"ethane": 1.0}), Distractor.ETHANE),
    Wanted("L6_stacking", "stacking-disordered ice", "f11221", _icy("stacking", None, 0.5)),
    Wanted(
        "L7_thylakoids",
        "chloroplast-like stripes",
        "generic",
        _clean({}, _STRIPES),
        Distractor.STACKED_MEMBRANES,
    ),
)


def record_lamella(wanted: Wanted, first_seed: int) -> SimulatedSeries:
    """Simulate seeds from the first on until one shows what is wanted."""
    for seed in count(first_seed):
        series = simulate_series(
            seed,
            wanted.family,
            n_tilts=len(ANGLES_DEG),
            size_px=SIZE_PX,
            pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
            angles_deg=ANGLES_DEG,
            overrides=wanted.choices,
        )
        ice = [tilt.ice_percent for tilt in series.tilts]
        whole = all(tilt.valid.mean() > 0.8 for tilt in series.tilts)
        shows = np.mean(ice) >= ICY_PERCENT and min(ice) > 4.0 if wanted.icy else max(ice) == 0.0
        if shows and whole and _shows_decoy(series, wanted.decoy):
            return series
    raise AssertionError("the seeds never end")


def _shows_decoy(series: SimulatedSeries, decoy: Distractor | None) -> bool:
    least, most = DECOY_SHARE
    return decoy is None or all(
        least <= ((tilt.distract & int(decoy)) != 0).mean() <= most for tilt in series.tilts
    )


def write_lamella(folder: Path, wanted: Wanted, series: SimulatedSeries) -> dict[str, object]:
    """Write the strip of pictures and return the lamella's entry in the index."""
    strip, tilts = [], []
    for tilt in series.tilts:
        scale = float(tilt.expected.max()) / 255.0
        strip.append(np.round(tilt.expected / scale).astype(np.uint8))
        tilts.append(
            {
                "angle_deg": tilt.angle_deg,
                "exposure_dose_e_per_A2": round(tilt.exposure_dose_e_per_A2, 3),
                "electrons_per_grey_level": scale,
                "ice_percent": round(tilt.ice_percent, 3),
            }
        )
    cv2.imwrite(str(folder / f"{wanted.name}.png"), np.concatenate(strip))
    return {"name": wanted.name, "title": wanted.title, "seed": series.seed, "tilts": tilts}


def main() -> None:
    """Record the session into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    lamellae = []
    for index, wanted in enumerate(SESSION):
        assert wanted.family in FAMILIES
        series = record_lamella(wanted, FIRST_SEED + 1000 * index)
        lamellae.append(write_lamella(folder, wanted, series))
        ice = ", ".join(f"{tilt.ice_percent:.1f}" for tilt in series.tilts)
        print(f"{wanted.name}: seed {series.seed}, ice {ice} %", flush=True)  # noqa: T201
    session = {
        "pixel_size_angstrom": PIXEL_SIZE_ANGSTROM,
        "skip_above_ice_percent": SKIP_ABOVE_ICE_PERCENT,
        "lamellae": lamellae,
    }
    (folder / "session.json").write_text(json.dumps(session, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
