"""Hands a prepared picture to a backend, padded to the sides that graphs take."""

from __future__ import annotations

import cv2
import numpy as np

from engines.backends.protocol import Backend, Inference, Memory
from engines.bundle import SIDE_STEP_PX
from engines.preprocess import Prepared


def padded_shape(prepared: Prepared) -> tuple[int, int]:
    """Tell the (rows, columns) that a backend takes for a picture."""
    rows, columns = prepared.picture.shape
    return rows + -rows % SIDE_STEP_PX, columns + -columns % SIDE_STEP_PX


def infer(backend: Backend, prepared: Prepared, memory: Memory | None = None) -> Inference:
    """Run the backend on a picture, mirrored below and to the right; the answer is padded too.

    Raises `BackendError` as the backend does.
    """
    rows, columns = prepared.picture.shape
    below, right = (
        whole - side for whole, side in zip(padded_shape(prepared), (rows, columns), strict=True)
    )
    picture = cv2.copyMakeBorder(prepared.picture, 0, below, 0, right, cv2.BORDER_REFLECT_101)
    valid = cv2.copyMakeBorder(
        prepared.valid.astype(np.float32), 0, below, 0, right, cv2.BORDER_CONSTANT, value=(0,)
    )
    return backend.infer(
        np.asarray(picture, np.float32)[None, None],
        np.asarray(valid, np.float32)[None, None],
        memory,
    )
