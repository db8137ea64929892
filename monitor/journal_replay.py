"""What a subscriber is told of the past: the messages that are kept, and where some are not.

Old sessions are removed (`monitor.retention`), and a damaged journal is begun anew. A subscriber
that asks for what is gone gets, in its place, one `status` message whose `seq` is the last that
is missing and whose `reason` says so.
"""

from __future__ import annotations

from collections.abc import Callable

from monitor.journal import Committed, Journal
from monitor.messages import StatusMessage

_NOTICE = "not kept: "


class KeptPast:
    """The journal as replay sees it; implements `monitor.sinks.stream_replay.Past`."""

    def __init__(self, journal: Journal, heartbeat: Callable[[], StatusMessage]) -> None:
        """Take the journal, and what makes the message that a notice is made of."""
        self._journal = journal
        self._heartbeat = heartbeat

    def messages_from(self, seq: int, limit: int) -> list[Committed]:
        """Give at most `limit` messages from `seq` on, oldest first, and a notice for each gap."""
        first = max(1, seq)
        found = self._journal.messages_from(first, limit)
        upto = found[-1].seq if found else self._journal.last_seq()
        if upto - first + 1 == len(found):
            return found
        told: list[Committed] = []
        for one in found:
            if one.seq > first:
                told.append(self._notice(first, one.seq - 1))
            told.append(one)
            first = one.seq + 1
        return told or ([self._notice(first, upto)] if first <= upto else [])

    def _notice(self, first: int, last: int) -> Committed:
        which = f"message {first} is" if first == last else f"messages {first} to {last} are"
        reason = (
            f"{_NOTICE}{which} gone, removed with an old session or lost with a damaged journal"
        )
        status = self._heartbeat().model_copy(update={"seq": last, "reason": reason})
        return Committed(last, status.topic, status.body())

    def lamella_messages(self, session: str) -> list[Committed]:
        """Give the newest message of every lamella of a session."""
        return self._journal.lamella_messages(session)

    def running_session(self) -> str:
        """Name the session that was last written to."""
        return self._journal.running_session()

    def last_seq(self) -> int:
        """Give the seq of the newest message."""
        return self._journal.last_seq()


def is_notice(message: StatusMessage) -> bool:
    """Whether this says that messages are not kept any more."""
    return message.reason.startswith(_NOTICE)
