"""What is known of one image and of the files that announce it, as the queue keeps it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from monitor.model import FileStat

_RECENT_S = 3600.0
_RECENT_MAX = 2000
"""How many files every scan looks at although nothing is to be done with them."""


class State(Enum):
    """Where a file is on its way."""

    QUIET = auto()
    """Nothing to do until it changes."""
    WAITING = auto()
    """In the queue."""
    WORKING = auto()
    """With the worker."""
    CHANGED = auto()
    """With the worker, and changed since: goes back into the queue afterwards."""
    INCOMPLETE = auto()
    """The worker wants to see it again: at its next change, or after the next scan."""


@dataclass(slots=True)
class LandedFile:
    """An image and the files that announce it (its mdoc); times by our own monotonic clock (s)."""

    relative: str
    members: dict[str, FileStat] = field(default_factory=dict)
    changed_s: float = 0.0
    image_changed_s: float = 0.0
    undone_since_s: float = 0.0
    """Since when there is something to be done with it, while there is."""
    proven_s: float = 0.0
    """When a look last proved that it is at rest, or when it changed since."""
    unchanged_scans: int = 0
    state: State = State.QUIET
    changed_here: bool = False
    """Whether it was seen to change, not only found."""
    lay_there: bool = False
    """Whether it is only worked on because it was there at start."""
    closed: bool = False
    """Whether the last change was the end of its writing: an event told so."""
    made_way: bool = False
    """Whether the worker was asked to put it back at once."""

    @property
    def is_there(self) -> bool:
        """Whether the image itself is there."""
        return self.relative in self.members

    def note(
        self, member: str, stat: FileStat, now_s: float, *, any_inode: bool, closed: bool = False
    ) -> bool:
        """Keep the newest stat of a member; True where it is a change."""
        known = self.members.get(member)
        if known == stat:
            return False
        self.members[member] = stat
        if any_inode and known and (known.size, known.mtime_ns) == (stat.size, stat.mtime_ns):
            return False
        self.changed_s = self.proven_s = now_s
        if member == self.relative:
            self.image_changed_s = now_s
        self.unchanged_scans = 0
        self.closed = closed
        return True

    def prove(self, looked_s: float, apart_s: float) -> None:
        """Count a look that saw no change, as often as looks could have been made meanwhile."""
        since_s = looked_s - self.proven_s
        if since_s >= apart_s:
            self.unchanged_scans += max(1, int(since_s / (2.0 * apart_s)))
            self.proven_s = looked_s


class Recent:
    """The files that changed last: those of an hour, and no more than every scan can look at.

    An hour by our own clock where the change was seen, else by the newest of all times of
    modification: the file server's clock is only ever compared with itself.
    """

    def __init__(self, files: Mapping[str, LandedFile], clock: Callable[[], float]) -> None:
        """Take all files, and a monotonic clock (s)."""
        self._files = files
        self._clock = clock
        self._names: OrderedDict[str, None] = OrderedDict()
        self._newest_ns = 0

    def changed(self, relative: str, stat: FileStat) -> None:
        """Note a change."""
        self._newest_ns = max(self._newest_ns, stat.mtime_ns)
        self._names[relative] = None
        self._names.move_to_end(relative)
        if len(self._names) > _RECENT_MAX:
            self._names.popitem(last=False)

    def forget(self, relative: str) -> None:
        """Note that a file is gone."""
        self._names.pop(relative, None)

    def __iter__(self) -> Iterator[str]:
        now_s = self._clock()
        newest_ns = self._newest_ns - int(_RECENT_S * 1e9)
        old = [one for one in self._names if not self._is_recent(one, now_s, newest_ns)]
        for relative in old:
            del self._names[relative]
        return iter(self._names)

    def _is_recent(self, relative: str, now_s: float, newest_ns: int) -> bool:
        file = self._files[relative]
        return (file.changed_here and now_s - file.changed_s < _RECENT_S) or any(
            stat.mtime_ns > newest_ns for stat in file.members.values()
        )
