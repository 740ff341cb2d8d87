"""What every simulated machine is asked and answers: one job, one account of its time; plain frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tilewright.design.design import Design
from tilewright.errors import ArgumentError
from tilewright.machines.machine import Machine

Value = float | int | str | bool


@dataclass(frozen=True)
class Job:
    """What to simulate.

    `program` is the name of an operator, `file.py:name` of a user's kernel, or a name that the machine's own
    simulator knows (a model such as `llama-3.1-8b`). `options` are settings that only one kind of machine has, by
    name; a simulator refuses what it does not know with an ArgumentError.
    """

    program: str
    machine: Machine
    sizes: Mapping[str, int] = field(default_factory=dict)
    dtype: str | None = None
    chips: int = 1
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """A share of the time: what the machine did or waited for. Parts do not overlap and add up."""

    name: str
    seconds: float
    cycles: float | None = None


@dataclass(frozen=True)
class Series:
    """A line, or bars of one colour: `y` over `x`; positions on x may be words."""

    name: str
    x: tuple[float | str, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Span:
    """A bar of a timeline: row `row` is busy from `start` for `length`; `group` decides its colour."""

    row: str
    start: float
    length: float
    group: str = ""


@dataclass(frozen=True)
class Chart:
    """A picture as data; `x` and `y` are what the axes say, with units."""

    title: str
    x: str
    y: str
    series: tuple[Series, ...] = ()
    spans: tuple[Span, ...] = ()
    kind: Literal["line", "bar", "stacked", "timeline"] = "line"
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Simulation:
    """A program's time on a machine, and where it went.

    `utilisation` is the share (0 to 1) of the peak of the compute units that was used; None where there is no peak.
    `parts` add up to `seconds`. `layers` are simulations of the program's pieces, `numbers` anything else that is
    worth knowing (name, value, unit), `assumptions` what the model takes for granted, and `facts` what it takes from
    publications and measurements, as sentences.
    """

    program: str
    machine: str
    sizes: tuple[tuple[str, int], ...]
    seconds: float
    cycles: float | None = None
    utilisation: float | None = None
    parts: tuple[Part, ...] = ()
    layers: tuple[Simulation, ...] = ()
    numbers: tuple[tuple[str, Value, str], ...] = ()
    assumptions: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    facts: tuple[str, ...] = ()

    def number(self, name: str) -> Value:
        """The number called `name`; KeyError if there is none."""
        return {n: value for n, value, _ in self.numbers}[name]

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON: everything but the charts, which are made of the same numbers."""
        return {
            "program": self.program, "machine": self.machine, "sizes": dict(self.sizes), "seconds": self.seconds,
            "cycles": self.cycles, "utilisation": self.utilisation,
            "parts": [{"name": p.name, "seconds": p.seconds, "cycles": p.cycles} for p in self.parts],
            "layers": [layer.to_json() for layer in self.layers],
            "numbers": {name: {"value": value, "unit": unit} for name, value, unit in self.numbers},
            "assumptions": list(self.assumptions), "facts": list(self.facts),
        }  # fmt: skip


def design_given(job: Job) -> Design | None:
    """The design of `--set design=JSON`, None where it is not set; ArgumentError for what is none."""
    text = job.options.get("design")
    try:
        return None if text is None else Design.from_json(text)
    except ValueError as error:
        raise ArgumentError(
            f"design={text}: {error}; write the JSON that `tilewright design {job.program} ... --json` gives, in quotes"
        ) from None


def notes_of(machine: Machine) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(facts, assumptions) among the notes of a machine's description; those that are assumed say so."""
    mark = "Assumed: "
    assumed = tuple(note.removeprefix(mark) for note in machine.notes if note.startswith(mark))
    return tuple(note for note in machine.notes if not note.startswith(mark)), assumed
