"""Which lamella a Tomography 5 position is on, as far as `Batch/BatchPositionsList.xml` tells.

Each position was set on a search map (a tile set), and there is one such map for each lamella; the
areas beside it that are reached by beam shift are named in the same entry.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from monitor.model import FileStat
from monitor.sources.at_rest import AtRest, read_small_file
from monitor.sources.naming import first_position

_MAX_BYTES = 8 << 20
_LONGEST_NAME = 100
_KEPT = 1000


class BatchPositions:
    """Finds the lamella of each series, and keeps to what it found first."""

    def __init__(self, directory: Path, at_rest: AtRest) -> None:
        """Take the acquisition directory, and what knows whether a file is being written to."""
        self._directory = directory
        self._at_rest = at_rest
        self._lists: OrderedDict[Path, tuple[FileStat, Mapping[str, str]]] = OrderedDict()
        self._found: OrderedDict[str, str] = OrderedDict()

    def is_being_written(self, relative: str) -> bool:
        """Whether a list that would tell of a file is there, but not at rest yet."""
        looks = (self._at_rest.look(path) for path in self._places(relative))
        return any(look.stat is not None and not look.at_rest for look in looks)

    def lamella(self, relative: str, series: str) -> str:
        """Name the lamella of a series: relative folder plus name, unique within the microscope."""
        folder = relative.rpartition("/")[0]
        key = f"{folder}/{series}"
        if key not in self._found:
            self._found[key] = "/".join(
                part for part in (folder, self._name(relative, series)) if part
            )
            if len(self._found) > _KEPT:
                self._found.popitem(last=False)
        return self._found[key]

    def _name(self, relative: str, series: str) -> str:
        position = first_position(series)
        for path in self._places(relative):
            names = self._read(path)
            name = names.get(series) or names.get(position)
            if name:
                return name
        return position

    def _places(self, relative: str) -> Iterator[Path]:
        """Yield where a list may lie: by the file, in the folder above, in that of the session."""
        folders = relative.split("/")[:-1]
        above = dict.fromkeys(tuple(folders[:depth]) for depth in _depths(len(folders)))
        for parts in above:
            yield self._directory.joinpath(*parts, "Batch", "BatchPositionsList.xml")

    def _read(self, path: Path) -> Mapping[str, str]:
        look = self._at_rest.look(path)
        before = self._lists.get(path)
        if look.stat is None or not look.at_rest:
            return before[1] if before else {}
        if before is None or before[0] != look.stat:
            self._lists[path] = before = (look.stat, _names_in(path))
            if len(self._lists) > _KEPT:
                self._lists.popitem(last=False)
        return before[1]


def _depths(count: int) -> list[int]:
    return [depth for depth in (count, count - 1, 1) if 0 <= depth <= count]


def _names_in(path: Path) -> Mapping[str, str]:
    """Read a list; empty where there is any doubt about it."""
    try:
        raw = read_small_file(path, _MAX_BYTES)
        # Entities can make a small file a huge one; the microscope's own lists have none.
        if b"<!" in raw or b"\0" in raw:
            return {}
        return names_in_list(raw)
    except (OSError, ValueError, LookupError, RecursionError, ElementTree.ParseError):
        return {}


def names_in_list(raw: bytes) -> dict[str, str]:
    """Map the name of each position to that of its tile set; raises where it is no XML."""
    found: dict[str, str] = {}
    doubtful: set[str] = set()
    for entry in _all(ElementTree.fromstring(raw), "BatchPositionParameters"):
        tile_set = _text(next(_all(entry, "TileSetName"), None))
        names = [_text(_child(entry, "Name"))]
        for area in _all(entry, "ExposureTemplateAreaParameters"):
            names.append(_text(_child(area, "Name")))
        for name in filter(None, names):
            if not tile_set or found.setdefault(name, tile_set) != tile_set:
                doubtful.add(name)
    return {name: tile_set for name, tile_set in found.items() if name not in doubtful}


def _all(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Yield what lies below an element under a name, whatever the name space."""
    return (one for one in element.iter() if one.tag.rpartition("}")[2] == name)


def _child(element: ElementTree.Element, name: str) -> ElementTree.Element | None:
    return next((one for one in element if one.tag.rpartition("}")[2] == name), None)


def _text(element: ElementTree.Element | None) -> str:
    """Give the text of an element; "" for what can be no name."""
    text = (element.text or "").strip() if element is not None else ""
    sound = text.isprintable() and "/" not in text and len(text) <= _LONGEST_NAME
    return text if sound and text not in (".", "..") else ""
