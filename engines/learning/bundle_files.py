"""Puts a file into a bundle, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

from engines.bundle import MANIFEST, manifest_entry


def add_file(directory: Path, name: str, content: bytes) -> None:
    """Write a file into a bundle and name it in the manifest.

    The manifest is replaced last, so that a bundle cut in the middle is still the one it was, or
    is refused.
    """
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["files"][name] = manifest_entry(content)
    text = json.dumps(manifest, indent=1) + "\n"
    for path, written in ((directory / name, content), (directory / MANIFEST, text.encode())):
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(written)
        partial.replace(path)
