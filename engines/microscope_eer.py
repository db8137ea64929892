"""Movies as Falcon 4 cameras write them, for a pretend microscope: EER, electron by electron.

`eer_movie_steps` is an iterator that does one write at a time, so that a movie can be seen at
every stage of its way; `write_eer_movie` does all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engines.microscope_step import Step
from engines.microscope_tiff import Tag, TiffAppender

_EER_BITS = {65000: (8, 2, 2), 65001: (7, 2, 2)}


def split_into_electrons(
    electrons: NDArray[Any], frames: int, generator: np.random.Generator
) -> Iterator[NDArray[np.bool_]]:
    """Split electrons for each pixel into frames of one a pixel at most, as EER notes them.

    Pixels with more electrons than there are frames lose the rest.
    """
    left = electrons.astype(np.float32)
    for remaining in range(frames, 0, -1):
        hit = generator.random(left.shape, np.float32) * remaining < left
        left -= hit
        yield hit


def eer_movie_steps(
    path: Path,
    frames: Iterable[NDArray[Any]],
    pixel_size_angstrom: float | None,
    *,
    codec: Literal[65000, 65001, 65002] = 65001,
    bits: tuple[int, int, int] = (7, 2, 2),
    final_image: NDArray[Any] | None = None,
    seed: int = 0,
) -> Iterator[Step]:
    """Write frames (rows, columns), true where an electron hit, as a Falcon 4 does.

    Each frame is two writes: its bytes, then its directory; the second counts as `header`.
    `bits` of run, column and row count for codec 65002 alone. `final_image` becomes a first page
    that holds no electrons, as some programs write it.
    """
    generator = np.random.default_rng(seed)
    sizes = _EER_BITS.get(codec, bits)
    stored = ((frame.shape, encode_electrons(frame, sizes, generator)) for frame in frames)
    yield from encoded_eer_steps(
        path, stored, pixel_size_angstrom, codec=codec, bits=bits, final_image=final_image
    )


def encoded_eer_steps(
    path: Path,
    stored: Iterable[tuple[tuple[int, ...], bytes]],
    pixel_size_angstrom: float | None,
    *,
    codec: Literal[65000, 65001, 65002] = 65001,
    bits: tuple[int, int, int] = (7, 2, 2),
    final_image: NDArray[Any] | None = None,
) -> Iterator[Step]:
    """Write frames that `encode_electrons` made, with their (rows, columns): `eer_movie_steps`."""
    file = TiffAppender(path, big=True)
    yield Step(path, "create", 16)
    metadata = _eer_metadata(pixel_size_angstrom)
    if final_image is not None:
        yield from _eer_final_image(file, final_image, metadata)
        metadata = b""
    for (rows, columns), raw in stored:
        offset = file.data(raw)
        yield Step(path, "pixels", len(raw))
        tags: list[Tag] = [
            (256, "long", [columns]),
            (257, "long", [rows]),
            (259, "short", [codec]),
            (262, "short", [1]),
            (273, "offset", [offset]),
            (278, "long", [rows]),
            (279, "offset", [len(raw)]),
        ]
        if codec == 65002:
            tags += [(65007 + index, "short", [size]) for index, size in enumerate(bits)]
        if metadata:
            tags.append((65001, "opaque", metadata))
            metadata = b""
        yield Step(path, "header", file.directory(tags))
    yield Step(path, "header", 0, (path,))


def write_eer_movie(
    path: Path,
    frames: Iterable[NDArray[Any]],
    pixel_size_angstrom: float | None,
    *,
    codec: Literal[65000, 65001, 65002] = 65001,
    bits: tuple[int, int, int] = (7, 2, 2),
    final_image: NDArray[Any] | None = None,
    seed: int = 0,
) -> None:
    """Write a whole EER movie; see `eer_movie_steps`."""
    for _ in eer_movie_steps(
        path,
        frames,
        pixel_size_angstrom,
        codec=codec,
        bits=bits,
        final_image=final_image,
        seed=seed,
    ):
        pass


def encode_electrons(
    frame: NDArray[Any],
    bits: tuple[int, int, int] = (7, 2, 2),
    generator: np.random.Generator | None = None,
) -> bytes:
    """Encode one EER frame: runs of empty pixels, each ended by where in a pixel one was hit.

    `bits` are those of the run, and of the column and row within the pixel, which are drawn from
    the generator; without one they are 0.
    """
    run_bits, column_bits, row_bits = bits
    longest = (1 << run_bits) - 1
    hits = np.flatnonzero(frame)
    runs = np.diff(hits, prepend=-1) - 1
    last = frame.size - (int(hits[-1]) + 1 if len(hits) else 0)
    # A run that is as long as can be means that it goes on; the last one reaches the end.
    again, rest = np.divmod(np.append(runs, last), longest)
    where = (
        0 if generator is None else generator.integers(0, 1 << column_bits + row_bits, len(hits))
    )
    words = rest.copy()
    words[:-1] |= where << run_bits
    lengths = np.full(len(words), run_bits + column_bits + row_bits)
    fill = again.cumsum() + np.arange(len(words))
    values = np.full(int(fill[-1]) + 1, longest)
    sizes = np.full(len(values), run_bits)
    values[fill], sizes[fill] = words, lengths
    return _pack_bits(values, sizes)


def _pack_bits(values: NDArray[np.int64], sizes: NDArray[np.int64]) -> bytes:
    """Put numbers of up to 16 bits one after the other, the lowest bit first."""
    starts = np.cumsum(sizes) - sizes
    total_bytes = int(starts[-1] + sizes[-1]) // 8 + 4
    shifted, places = values << starts % 8, starts // 8
    packed = np.zeros(total_bytes)
    for byte in range(3):
        part = (shifted >> 8 * byte) & 255
        # No two numbers share a bit, so that adding is the same as joining.
        packed += np.bincount(places + byte, part, total_bytes)
    return packed.astype(np.uint8).tobytes() + bytes(total_bytes % 2)


def _eer_final_image(file: TiffAppender, image: NDArray[Any], metadata: bytes) -> Iterator[Step]:
    rows, columns = image.shape
    raw = image.astype("<u2").tobytes()
    offset = file.data(raw)
    yield Step(file.path, "pixels", len(raw))
    tags: list[Tag] = [
        (256, "long", [columns]),
        (257, "long", [rows]),
        (258, "short", [16]),
        (259, "short", [1]),
        (262, "short", [1]),
        (273, "offset", [offset]),
        (278, "long", [rows]),
        (279, "offset", [len(raw)]),
        (65001, "opaque", metadata),
    ]
    yield Step(file.path, "header", file.directory(tags))


def _eer_metadata(pixel_size_angstrom: float | None) -> bytes:
    size = "" if pixel_size_angstrom is None else f"{pixel_size_angstrom * 1e-10:.6g}"
    items = [
        ("acquisitionID", "", "icewatch"),
        ("sensorPixelSize.height", "m", size),
        ("sensorPixelSize.width", "m", size),
        ("serialNumber", "", "1"),
    ]
    lines = [
        f'<item name="{name}"{f" unit={unit!r}" if unit else ""}>{value}</item>'.replace("'", '"')
        for name, unit, value in items
        if value
    ]
    return "".join(["<metadata>", *lines, "</metadata>"]).encode()
