"""SerialEM's Navigator files (.nav), read for the names of PACEtomo's targets only.

SerialEM keeps the Navigator in memory and writes it as text (an autodoc) or XML; the item of a
lamella's first target bears the name of its targets file as its note
(https://bio3d.colorado.edu/SerialEM/hlp/html/about_formats.htm, PACEtomo_selectTargets.py).
"""

from __future__ import annotations

import re
from html import unescape
from pathlib import PureWindowsPath

_NOTE = re.compile(r"^Note\s*=\s*(.+?)_tgts\.txt\s*$", re.MULTILINE)
_XML_NOTE = re.compile(r"<Note>\s*([^<]+?)_tgts\.txt\s*</Note>")


def roots_in_navigator(text: str) -> frozenset[str]:
    """List the roots whose targets files the items of a Navigator file name in their notes."""
    notes = [*_NOTE.findall(text), *(unescape(note) for note in _XML_NOTE.findall(text))]
    return frozenset(PureWindowsPath(note).name for note in notes)
