"""What a verdict rule offers to the pipeline."""

from typing import Protocol

from monitor.model import LamellaHistory, Verdict


class Policy(Protocol):
    """A pure function of the history, so that a verdict can be replayed from the journal."""

    def decide(self, history: LamellaHistory) -> Verdict:
        """Weigh the readings of one lamella; called by the worker after every tilt."""
        ...
