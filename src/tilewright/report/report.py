"""Writing a report: one HTML page, its pictures as PNG files, and the evidence behind both as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from tilewright.errors import ArgumentError
from tilewright.report.canvas import png
from tilewright.report.evidence import Evidence, write_whole
from tilewright.report.figures import FIGURES
from tilewright.report.page import page

PAGE, DATA = "report.html", "report.json"


def write_report(evidence: Evidence, folder: Path) -> Path:
    """Write the report into `folder` and give the path of its page; files of an earlier report are replaced.

    Raises MissingPackage without matplotlib and ArgumentError where the folder cannot be written.
    """
    pictures = draw(evidence)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in pictures.items():
            write_whole(folder / f"{name}.png", data)
        write_whole(folder / DATA, json.dumps(evidence.to_dict()).encode())
        write_whole(folder / PAGE, page(evidence, pictures).encode())
    except OSError as error:
        raise ArgumentError(
            f"the report cannot be written to {folder} ({error.strerror}); name another folder"
        ) from None
    return folder / PAGE


def draw(evidence: Evidence) -> dict[str, bytes]:
    """The pictures that the evidence allows, as PNG files by name."""
    figures = {name: make(evidence) for name, make in FIGURES.items()}
    return {name: png(figure) for name, figure in figures.items() if figure is not None}
