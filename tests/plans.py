"""Plans for tests: keys, contents that need no library, and the real builder where it is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from engines.plans.errors import PlanError
from engines.plans.folder import RECORD
from engines.plans.key import BuildOptions, Card, PlanKey
from engines.plans.library import Library, find
from engines.plans.record import stem
from engines.plans.store import PlanStore

CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
CARD = Card(name="NVIDIA RTX A5000", compute_capability="8.6", driver="580.65.06")
KEY = PlanKey(
    graph_sha256="1" * 64,
    library="tensorrt_rtx",
    library_version="1.7.1.116",
    options=BuildOptions(),
    card=CARD,
)
CONTENT = bytes(range(256)) * 8

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")


def builder() -> Library:
    """Load the library that builds without a card, or skip the test."""
    try:
        return find("tensorrt_rtx")
    except PlanError as error:
        if error.reason != "library_missing":
            raise
        pytest.skip("needs the extra gpu: pip install tensorrt-rtx")


def refused(work: Callable[[], object], reason: str) -> str:
    """Run what must raise `PlanError`; gives its one sentence."""
    with pytest.raises(PlanError) as caught:
        work()
    sentence = str(caught.value)
    assert caught.value.reason == reason, sentence
    assert sentence.endswith(".") and "\n" not in sentence, sentence
    return sentence


def files(directory: Path, key: PlanKey) -> tuple[Path, Path]:
    """Name the plan of a key and its record."""
    plan = directory / stem(key, "plan")
    return plan, Path(f"{plan}{RECORD}")


class Kept:
    """A store with one plan in it, and what it reported."""

    def __init__(self, directory: Path, content: bytes = CONTENT) -> None:
        self.said: list[str] = []
        self.store = PlanStore(directory, self.said.append)
        self.content = content
        self.plan, self.record = files(directory, KEY)
        self.keep()

    def keep(self) -> None:
        self.store.put(KEY, self.content, "tiny 1")
        self.said.clear()

    def is_thrown_away(self) -> str:
        """Check that the plan is refused once, is gone, and can be kept again; gives the report."""
        assert self.store.load(KEY) is None
        assert len(self.said) == 1 and self.plan.name in self.said[0], self.said
        assert not os.path.lexists(self.plan) and not os.path.lexists(self.record)
        assert self.store.load(KEY) is None and len(self.said) == 1, "reported twice"
        sentence = self.said[0]
        self.keep()
        assert self.store.load(KEY) == self.content
        return sentence


texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
counts = st.integers(0, 2**40)
capabilities = st.sampled_from(CAPABILITIES)
cards = st.builds(
    Card,
    name=texts,
    compute_capability=capabilities,
    driver=texts,
    memory_bytes=counts,
    multiprocessors=counts,
    l2_bytes=counts,
    bus_bits=counts,
    error_correction=st.booleans(),
)


@st.composite
def options(draw: st.DrawFn) -> BuildOptions:
    """Draw options that a plan can be built with."""
    sides: list[Any] = sorted(draw(st.lists(st.integers(1, 64), min_size=3, max_size=3)))
    return BuildOptions(
        precision=draw(st.sampled_from(("fp16", "fp32"))),
        compute_capabilities=tuple(draw(st.lists(capabilities, max_size=3))),
        max_batch=draw(st.integers(1, 8)),
        least_side_px=32 * sides[0],
        best_side_px=32 * sides[1],
        most_side_px=32 * sides[2],
    )


keys = st.builds(
    PlanKey,
    graph_sha256=hashes,
    library=st.sampled_from(("tensorrt", "tensorrt_rtx")),
    library_version=texts,
    options=options(),
    card=st.none() | cards,
    recipe=st.integers(0, 9),
)
