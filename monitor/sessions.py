"""Which session a tilt belongs to that lies directly in the acquisition directory."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

from monitor.journal import Journal
from monitor.model import Tilt
from monitor.sources.naming import LooseSession, loose_session

_KEY = "loose_sessions"
_KEPT = 100


class LooseSessions:
    """Tells sessions without a folder of their own apart by the pauses between their tilts."""

    def __init__(self, journal: Journal, session_gap_h: float) -> None:
        """Take up the sessions that the journal remembers."""
        self._journal = journal
        self._session_gap_h = session_gap_h
        self._known = {
            name: LooseSession(name, datetime.fromisoformat(first), datetime.fromisoformat(last))
            for name, first, last in json.loads(journal.get(_KEY, "[]"))
        }

    def place(self, tilt: Tilt) -> Tilt:
        """Give a tilt its session; one that has a folder keeps it.

        The microscope's own clock tells when a tilt came, ours only where it wrote nothing.
        """
        if tilt.session:
            return tilt
        now = datetime.now().replace(microsecond=0)
        when = datetime.fromisoformat(tilt.acquired_at) if tilt.acquired_at else now
        session = loose_session(self._known.values(), when, self._session_gap_h)
        if self._known.get(session.name) != session:
            self._known[session.name] = session
            newest = sorted(self._known.values(), key=lambda one: one.last_at)[-_KEPT:]
            self._known = {one.name: one for one in newest}
            rows = [[s.name, s.first_at.isoformat(), s.last_at.isoformat()] for s in newest]
            self._journal.set(_KEY, json.dumps(rows))
        return replace(tilt, session=session.name)
