"""Refuse files that do not belong into a commit: too large, or text without a clean end.

Usage: python .ci/check_files.py FILE...; works with the standard library alone.
"""

import sys
from pathlib import Path

LIMIT_BYTES = 1_000_000
LARGE_ALLOWED = {"engines/bundles": 40_000_000}
"""The shipped model; replaced rarely."""
TEXT = {".py", ".md", ".toml", ".txt", ".json", ".yaml", ".yml", ".sh", ".service", ".cfg", ""}
CONFLICT = (b"<<<<<<< ", b">>>>>>> ")


def faults(path: Path) -> list[str]:
    """Say what is wrong with a file; nothing if it is sound or gone."""
    if not path.is_file() or path.is_symlink():
        return []
    content = path.read_bytes()
    limit = next(
        (size for folder, size in LARGE_ALLOWED.items() if path.is_relative_to(folder)), LIMIT_BYTES
    )
    found = []
    if len(content) > limit:
        found.append(f"{len(content) / 1e6:.1f} MB, more than {limit / 1e6:.0f} MB")
    if path.suffix in TEXT and b"\0" not in content:
        if content and not content.endswith(b"\n"):
            found.append("no newline at the end")
        if content.endswith(b"\n\n"):
            found.append("empty lines at the end")
        if b"\r\n" in content:
            found.append("Windows line ends")
        if any(line.startswith(CONFLICT) for line in content.splitlines()):
            found.append("a merge conflict that was not resolved")
    return found


def main(names: list[str]) -> int:
    """Print one line for each fault."""
    lines = [f"{name}: {fault}" for name in names for fault in faults(Path(name))]
    print("\n".join(lines), end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
