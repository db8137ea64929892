"""The README.txt of an export: five steps in CVAT, for somebody who was never there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.annotation import LABELS
from monitor.annotate.proposals import Proposal
from monitor.screen import plain


@dataclass(frozen=True, slots=True)
class Format:
    """A format of annotations, as CVAT calls it."""

    upload_name: str
    export_name: str
    file: Path
    """Below the folder of the export."""


_TEXT = """\
Pictures of tilts to label in CVAT, made by icewatch.

1. In CVAT, open Tasks, press + and choose "Create a new task". Give it a name. Under Labels, open
   the tab "Raw", replace what is there by the content of labels.json, and press Done.
2. Under "Select files", drop all pictures of the folder images. Press "Submit & Open".
3. On the page of the task, choose Actions > Upload annotations > {upload_name}, and give it
   {file}. What the network took for ice is now drawn in.{packed}
4. Open the job and correct it, picture by picture. Draw with the polygon or the brush; labels:
{labels}
   - Label what YOU want counted, in all pictures alike: coarse outlines are fine.
   - A picture on which nothing is drawn says: there is no ice on it. That is worth as much as ice.
   - What is left as it is counts as right. Delete a picture that you have no time for
     (the bin in the bar on top), do not leave it unseen.
   - A hole is an edge that runs into the ice and back; one drawn with the brush is fine as well.
   - Do not turn, cut or rename pictures. Save (Ctrl+S).
5. On the page of the task, choose Actions > Export task dataset > {export_name} ("Save images" is
   not needed), and download the ZIP file. Then check it, and see how well the network agrees:
     icewatch annotate import EXPORT.zip --tilts TILTS --preview PREVIEW
     icewatch evaluate annotated TILTS --cvat EXPORT.zip --out REPORT

Row 0 of a picture is row 0 of the tilt as it is stored; microscope programs show MRC files the
other way up.

The pictures, and why they were chosen:
{pictures}
"""


_PACKED = """
   (dataset.zip holds pictures and annotations together: in a project with these labels, Actions >
   Import dataset > {upload_name} takes it in place of steps 2 and 3.)"""


def instructions(chosen: Format, proposals: Sequence[Proposal], *, packed: bool = False) -> str:
    """Write the text; `packed` where the whole lies there as a ZIP file, too."""
    width = max(len(one.name) for one in LABELS)
    labels = "\n".join(f"     {one.name:<{width}}  {one.explanation}" for one in LABELS)
    pictures = "\n".join(
        f"  {plain(one.candidate.name)}  ({plain(one.candidate.tilt.lamella)}, "
        f"{_angle_text(one.candidate.tilt.angle_deg)}): {one.reason}"
        for one in proposals
    )
    return _TEXT.format(
        upload_name=chosen.upload_name,
        export_name=chosen.export_name,
        file=chosen.file,
        labels=labels,
        pictures=pictures,
        packed=_PACKED.format(upload_name=chosen.upload_name) if packed else "",
    )


def _angle_text(angle_deg: float | None) -> str:
    return "angle unknown" if angle_deg is None else f"{angle_deg:+.1f}°"
