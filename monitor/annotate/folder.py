"""The folder that is taken to CVAT: pictures, annotations, labels, and what to do with them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from engines.annotation import (
    LABELS,
    AnnotatedImage,
    Annotations,
    as_coco,
    as_cvat_images,
    as_labels,
)
from engines.annotation.export import COCO, CVAT_IMAGES
from monitor.annotate.instructions import Format, instructions
from monitor.annotate.proposals import Proposal
from monitor.errors import ConfigError, MonitorError
from monitor.writable import refuse_unwritable

FORMATS = {
    "coco": Format("COCO 1.0", "COCO 1.0", COCO),
    "cvat": Format("CVAT 1.1", "CVAT for images 1.1", CVAT_IMAGES),
}
_WRITERS: dict[str, Callable[[Annotations], bytes]] = {"coco": as_coco, "cvat": as_cvat_images}
IMAGES = Path("images")
README, LABEL_FILE, PACKED = Path("README.txt"), Path("labels.json"), Path("dataset.zip")


class ExportFolder:
    """Writes an export; what is begun and not finished is removed again."""

    def __init__(self, directory: Path, format_name: str) -> None:
        self._directory = directory
        self._format_name = format_name
        self._files: dict[Path, None] = {}
        self._made: list[Path] = []
        self._finished = False

    def __enter__(self) -> ExportFolder:
        """Make the folder; raises `ConfigError` where it cannot be written to."""
        try:
            self._make(self._directory)
            refuse_unwritable("OUT", self._directory)
        except OSError as error:
            self._remove_all()
            raise ConfigError(
                f"OUT {self._directory}: cannot be made: {error.strerror}; name another folder"
            ) from error
        except ConfigError:
            self._remove_all()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._finished:
            self._remove_all()

    def add(self, name: str, png: bytes) -> None:
        """Write the picture of a tilt; raises `MonitorError`."""
        self._write(IMAGES / name, png)

    def drop(self, name: str) -> None:
        """Remove a picture again."""
        (self._directory / IMAGES / name).unlink()
        del self._files[IMAGES / name]

    def finish(
        self, done: Sequence[tuple[Proposal, AnnotatedImage]], *, packed: bool = False
    ) -> None:
        """Write all that goes with the pictures, the annotations last; raises `MonitorError`."""
        labels = tuple(one.name for one in LABELS)
        annotations = Annotations(Path(), labels, tuple(image for _, image in done))
        chosen = FORMATS[self._format_name]
        self._write(LABEL_FILE, as_labels(labels))
        self._write(README, instructions(chosen, [one for one, _ in done], packed=packed).encode())
        self._write(chosen.file, _WRITERS[self._format_name](annotations))
        if packed:
            self._pack(chosen)
        self._finished = True

    def _pack(self, chosen: Format) -> None:
        """Pack annotations and pictures as CVAT imports a data set."""
        inside = [name for name in self._files if name == chosen.file or name.parent == IMAGES]
        target = self._directory / PACKED
        self._files[PACKED] = None
        try:
            with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as packed:
                for name in inside:
                    packed.write(self._directory / name, name)
        except OSError as error:
            raise self._cannot(target, error) from error

    def _write(self, name: Path, content: bytes) -> None:
        target = self._directory / name
        try:
            self._make(target.parent)
            with target.open("xb") as file:
                self._files[name] = None
                file.write(content)
        except OSError as error:
            raise self._cannot(target, error) from error

    def _make(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make(folder.parent)
            folder.mkdir()
            self._made.append(folder)

    def _cannot(self, target: Path, error: OSError) -> MonitorError:
        return MonitorError(
            f"'{target}' cannot be written ({error.strerror}), and nothing was kept; free space "
            "there or name another folder"
        )

    def _remove_all(self) -> None:
        with suppress(OSError):
            for name in self._files:
                (self._directory / name).unlink(missing_ok=True)
            for folder in reversed(self._made):
                folder.rmdir()
