"""Sweeps: one job for each batch and context of two lists, and the lines that they draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from tilewright.errors import ArgumentError
from tilewright.runtime.compiled import dtypes_of
from tilewright.runtime.subject import program_named
from tilewright.simulate.decoder import DECODERS
from tilewright.simulate.simulation import Chart, Job, Part, Series, Simulation

ROWS = ("M", "B")
"""The dimensions of an operator that a batch may be, the first that it has."""


def each(job: Job) -> list[Job]:
    """The jobs of a sweep, `batch` outside: both options are lists, as in 1,8,64; one job where they are no lists.

    The batch of an operator is its size along M, or B. ArgumentError for lists that are none, and for operators that
    have no such dimension.
    """
    lists = {name: numbers(name, job.options[name]) for name in ("batch", "context") if name in job.options}
    model = job.program in DECODERS
    if not lists:
        return [job]
    if not model and "context" in lists:
        raise ArgumentError(f"context is of models ({', '.join(DECODERS)}); give {job.program} its sizes, as in T=4096")
    rows = "" if model else _rows(job)
    jobs = []
    for values in product(*lists.values()):
        point = dict(zip(lists, values, strict=True))
        if model:
            jobs.append(replace(job, options={**job.options, **{n: str(v) for n, v in point.items()}}))
        else:
            others = {n: v for n, v in job.options.items() if n != "batch"}
            jobs.append(replace(job, sizes={**job.sizes, rows: point["batch"]}, options=others))
    return jobs


def numbers(name: str, text: str) -> list[int]:
    """The numbers of a list such as 1,8,64; ArgumentError for anything else."""
    found = [int(part) if part.isdigit() else 0 for part in text.split(",")]
    if min(found) < 1:
        raise ArgumentError(f"{name}={text!r} is no list of numbers from 1 on; write {name}=1,8,64")
    return found


def _rows(job: Job) -> str:
    kernel = program_named(job.program)
    dims = kernel.trace(dtypes_of(kernel, "f32")).dims
    rows = next((d for d in ROWS if d in dims), None)
    if rows is None:
        raise ArgumentError(
            f"batch: {job.program} has no dimension {' or '.join(ROWS)}; give its sizes {', '.join(dims)}"
        )
    return rows


# ------------------------------------------------------------------------------------------------ the answer
def swept(job: Job, jobs: Sequence[Job], made: Sequence[Simulation]) -> Simulation:
    """Each job of a sweep once; its lines are over the batch, one for each context, or over the context alone."""
    points = [_point(job, j) for j in jobs]
    parts = tuple(
        Part(", ".join(f"{n} {v}" for n, v in p.items()), m.seconds) for p, m in zip(points, made, strict=True)
    )
    measures = [name for name in _MEASURES if all(_value(m, name) is not None for m in made)]
    charts = tuple(_lines(job, points, [_value(m, name) or 0.0 for m in made], name) for name in measures)
    numbers = tuple(
        (f"{measures[0]}, {p.name}", _value(m, measures[0]) or 0.0, _MEASURES[measures[0]])
        for p, m in zip(parts, made, strict=True)
    )
    common = [text for text in made[0].assumptions if all(text in m.assumptions for m in made)]
    return Simulation(
        job.program, job.machine.name, (), sum(p.seconds for p in parts), parts=parts, layers=tuple(made),
        numbers=numbers, assumptions=("The seconds of a sweep are those of each point once.", *common), charts=charts,
        facts=made[0].facts,
    )  # fmt: skip


_MEASURES = {"tokens per second": "1/s", "share of the peak": "", "seconds": "s"}
"""What is drawn of each point, with its unit; the first that all points have is printed."""


def _value(told: Simulation, name: str) -> float | None:
    if name == "seconds":
        return told.seconds
    if name == "share of the peak":
        return told.utilisation
    return next((float(value) for n, value, _ in told.numbers if n == name), None)


def _point(job: Job, one: Job) -> dict[str, int]:
    """Where a job of a sweep lies: its batch and context, as far as they were asked for."""
    if job.program in DECODERS:
        return {n: int(one.options[n]) for n in ("batch", "context") if n in job.options}
    return {"batch": one.sizes[next(d for d in ROWS if d in one.sizes)]}


def _lines(job: Job, points: Sequence[dict[str, int]], values: Sequence[float], measure: str) -> Chart:
    along = "batch" if len({p.get("batch") for p in points}) > 1 else "context"
    along = along if along in points[0] else next(iter(points[0]))
    lines: dict[str, list[tuple[float, float]]] = {}
    for point, value in zip(points, values, strict=True):
        name = ", ".join(f"{n} {v}" for n, v in point.items() if n != along) or job.program
        lines.setdefault(name, []).append((point[along], value))
    series = tuple(Series(name, tuple(x for x, _ in line), tuple(y for _, y in line)) for name, line in lines.items())
    unit = _MEASURES[measure]
    said = measure if unit in ("", "1/s") else f"{measure} ({unit})"
    share = measure == "share of the peak"
    return Chart(f"{job.program} on {job.machine.name}", along, said, series, log_x=True, log_y=not share)


__all__ = ["ROWS", "each", "numbers", "swept"]
