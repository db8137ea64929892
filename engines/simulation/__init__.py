"""Simulated tilts of vitrified specimens with and without crystalline ice, and their truth."""

from engines.simulation.camera import CameraChoices, random_camera, record
from engines.simulation.canvas import Distractor
from engines.simulation.families import (
    EMPIAR_LIKE,
    FAMILIES,
    HELD_OUT_DOMAINS,
    HELD_OUT_FAMILIES,
)
from engines.simulation.parameters import SceneChoices
from engines.simulation.series import SimulatedSeries, SimulatedTilt, simulate_series

__all__ = [
    "EMPIAR_LIKE",
    "FAMILIES",
    "HELD_OUT_DOMAINS",
    "HELD_OUT_FAMILIES",
    "CameraChoices",
    "Distractor",
    "SceneChoices",
    "SimulatedSeries",
    "SimulatedTilt",
    "random_camera",
    "record",
    "simulate_series",
]
