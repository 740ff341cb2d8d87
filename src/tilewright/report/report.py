"""Writing a report: one HTML page, its pictures as PNG files, and the evidence behind both as JSON."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tilewright.errors import ArgumentError
from tilewright.report.canvas import png
from tilewright.report.evidence import Evidence, to_text, write_whole
from tilewright.report.figures import FIGURES
from tilewright.report.page import page

PAGE, DATA = "report.html", "report.json"


def write_report(evidence: Evidence, folder: Path) -> Path:
    """Write the report into `folder` and give the path of its page; files of an earlier report are replaced.

    Raises MissingPackage without matplotlib and ArgumentError where the folder cannot be written.
    """
    pictures = draw(evidence)
    make_folder(folder)
    try:
        for name, data in pictures.items():
            write_whole(folder / f"{name}.png", data)
        write_whole(folder / DATA, to_text(evidence).encode())
        write_whole(folder / PAGE, page(evidence, pictures).encode())
    except OSError as error:
        raise _unwritable(folder, error) from None
    return folder / PAGE


def make_folder(folder: Path) -> None:
    """The folder of a report, now, so that an ArgumentError comes before all that is measured for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> ArgumentError:
    return ArgumentError(
        f"the report cannot be written to {folder} ({error.strerror}); name another folder with --report"
    )


def draw(evidence: Evidence) -> dict[str, bytes]:
    """The pictures that the evidence allows, as PNG files by name."""
    figures = {name: make(evidence) for name, make in FIGURES.items()}
    return {name: png(figure) for name, figure in figures.items() if figure is not None}
