"""The report of `tilewright design`: where it goes, and what is measured for it beside the search."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilewright.design.design import Design
    from tilewright.machines.machine import Machine
    from tilewright.report.evidence import Evidence
    from tilewright.runtime.designer import Designed
    from tilewright.runtime.subject import Subject

NO_SIZES = frozenset({"operator", "dtype", "options", "present"})
"""Arguments of a search that are no sizes."""

MORE_SECONDS = 1.0
"""How long the vendor is timed beside the winner."""

FOLDER = "reports"

TITLE = "for the report: random designs, the ladder"


@dataclass(frozen=True)
class How:
    """How to search: the options of `tw.search` that hold for every operator of a command."""

    budget: str = "60s"
    target: str | None = None
    objective: str = "latency"
    numerics: str = "free"
    strategy: str = "evolve"
    seed: int = 0
    threads: int | None = None
    again: bool = False
    machine: Machine | None = None

    def options(self) -> dict[str, Any]:
        """As arguments of `tw.search`."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def usual_folder(key: str) -> Path:
    """Where the report of a key goes if nobody names a folder: beside the book, which holds what it shows."""
    from tilewright.knobs import knobs

    return knobs().cache_dir / FOLDER / key[:12]


def need_pictures() -> None:
    """MissingPackage before anything is measured, where reports cannot be drawn."""
    from tilewright.report.canvas import canvas

    canvas()


def page_of(found: Designed, wanted: Mapping[str, Any], how: How, folder: Path | None) -> Path | None:
    """The page of the report on what was found: written now, in the usual folder unless one is named.

    What the book knew has the report of the search that found it, or None. Raises as `write`.
    """
    from tilewright.report.report import PAGE

    place = usual_folder(found.key.hash) if folder is None else folder
    if found.result is not None:
        return write(found, wanted, how, place)
    return place / PAGE if (place / PAGE).is_file() else None


def write(found: Designed, wanted: Mapping[str, Any], how: How, folder: Path) -> Path:
    """Measure what a report shows beside the search, and write it; the path of its page.

    `wanted` are the arguments of `tw.search` that say what was designed. Raises MissingPackage without matplotlib and
    ArgumentError where the folder cannot be written.
    """
    from tilewright.report.report import make_folder, write_report

    need_pictures()
    make_folder(folder)
    return write_report(_evidence(found, wanted, how), folder)


def _evidence(found: Designed, wanted: Mapping[str, Any], how: How) -> Evidence:
    from tilewright.machines.bandwidth import measured_bandwidth
    from tilewright.report.gather import gather
    from tilewright.report.progress import search_bar
    from tilewright.runtime.subject import Subject
    from tilewright.runtime.trial import TrialRunner

    assert found.result is not None
    sizes = {d: n for d, n in wanted.items() if d not in NO_SIZES}
    options = {name: wanted[name] for name in ("options", "present") if name in wanted}
    subject = Subject.of(wanted["operator"], sizes, wanted["dtype"], threads=how.threads, **options)
    measured_bandwidth(subject.machine, subject.threads)  # once on a host: the roof of the roofline
    vendor, ratio = _vendor(subject, found.design)
    with (
        TrialRunner(subject, seed=how.seed) as runner,
        search_bar(TITLE) as progress,
    ):
        return gather(
            subject, found.result, runner, strategy=how.strategy, seed=how.seed,
            command=command_of(wanted, how), vendor=vendor, vendor_ratio=ratio, progress=progress,
        )  # fmt: skip


def _vendor(subject: Subject, design: Design) -> tuple[str, float | None]:
    """The vendor's name and its time over the design's, side by side; no ratio where it is not installed, or has no
    such operator.
    """
    if find_spec("torch") is None:
        return "", None
    from tilewright.bench.designed import beside
    from tilewright.bench.peers import set_threads
    from tilewright.bench.vendor import NAME

    set_threads(subject.threads)
    found = beside(subject, design, seconds=MORE_SECONDS, as_trials=True)
    return NAME, None if found is None else found.ratio.median


def command_of(wanted: Mapping[str, Any], how: How) -> str:
    """The command that searches so again; options that are as usual are left out."""
    sizes = [f"{d}={n}" for d, n in wanted.items() if d not in NO_SIZES]
    operator, dtype = wanted["operator"], wanted["dtype"]
    words = ["tilewright", "design", operator if isinstance(operator, str) else operator.name, *sizes]
    words += ["--dtype", dtype] if isinstance(dtype, str) else []
    for name, value in how.options().items():
        if name not in ("again", "machine") and value not in (None, getattr(How, name)):
            words += [f"--{name}", str(value)]
    return shlex.join(words)
