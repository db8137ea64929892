"""What heartbeat and status say of the bundles: which one reads, and what became of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monitor.bundle_choice import Choice, Serving
from monitor.messages import StatusMessage


@dataclass(frozen=True, slots=True)
class BundleReport:
    """How things are with the bundles at one moment."""

    name: str
    """Of the bundle that reads, as in its manifest."""
    version: str
    serves: str
    """The same as the store names it, or the path in the configuration."""
    doing: str
    """What is being done with the bundle that is asked for; empty: nothing."""
    choice: Choice
    serving: Serving
    unreadable: str
    """Why nobody can tell what was asked for; empty where all is well."""
    shadow: dict[str, Any]

    @property
    def sentence(self) -> str:
        """What a person should know; empty where all is as was asked for."""
        serving = self.serving
        if serving.lost:
            return f"the bundle {serving.lost}"
        if serving.refused:
            return f"the bundle {self.serves} goes on, refused was {serving.refused}"
        if serving.shadow_off:
            return f"the shadow is off, {serving.shadow_off}"
        return self.unreadable

    def worded(self, beat: StatusMessage) -> StatusMessage:
        """Add it to a heartbeat."""
        told = {"bundle": self.name, "bundle_version": self.version}
        return beat.model_copy(update={**told, **self._state(beat.state, beat.reason)})

    def told(self, status: dict[str, Any]) -> dict[str, Any]:
        """Add it to what `/status` shows."""
        shadow = {"bundle": self.choice.shadow, "off": self.serving.shadow_off, **self.shadow}
        return {
            **status,
            **self._state(status["state"], status["reason"]),
            "bundles": {
                "name": self.name,
                "version": self.version,
                "serves": self.serves,
                "asked_for": self.choice.active if self.doing else "",
                "doing": self.doing,
                "refused": self.serving.refused,
                "lost": self.serving.lost,
                "shadow": shadow,
            },
        }

    def _state(self, state: str, reason: str) -> dict[str, str]:
        """Another bundle than the one that should serve makes other numbers: degraded."""
        if self.serving.lost and state == "ready":
            return {"state": "degraded", "reason": self.sentence}
        return {"state": state, "reason": reason or self.sentence}
