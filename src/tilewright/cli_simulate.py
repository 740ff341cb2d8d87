"""`tilewright simulate`: a program's time on a machine that is not at hand, and where it goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli_options import AsJson
from tilewright.errors import ArgumentError

if TYPE_CHECKING:
    from tilewright.simulate.simulation import Simulation


def simulate(
    program: Annotated[
        str, typer.Argument(help="Name of an operator, file.py:name of your own, or a model such as llama-3.1-8b.")
    ],
    sizes: Annotated[list[str] | None, typer.Argument(help="Its sizes: M=256 N=128 K=256.")] = None,
    *,
    machine: Annotated[
        str, typer.Option(help="tpu-v1, sn40l, systolic:32x32:ws, h100, ..., or a .json description.")
    ] = "tpu-v1",
    chips: Annotated[int, typer.Option(help="How many of them share a model.", min=1)] = 1,
    batch: Annotated[
        str | None, typer.Option(help="Sequences of a model, rows of an operator; a list sweeps: 1,8,64.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Tokens that a model looks back on; a list sweeps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Element type. Default: what the machine multiplies.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE of what only one kind has.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the charts to this HTML file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a program on a simulated machine: cycles, utilisation, and what the time is spent on."""
    from tilewright.machines.machine import Machine
    from tilewright.simulate.kinds import simulate as run
    from tilewright.simulate.simulation import Job

    numbers = {name: _count(name, value) for name, value in _pairs(sizes or [], "a size").items()}
    swept = {name: value for name, value in (("batch", batch), ("context", context)) if value is not None}
    options = {**_pairs(settings or [], "--set"), **swept}
    told = run(Job(program, Machine.named(machine), numbers, dtype, chips, options))
    if plot is not None:
        from tilewright.report.charts import write_page

        write_page(told, plot)
    typer.echo(json.dumps(told.to_json()) if as_json else described(told))
    if plot is not None and not as_json:
        typer.echo(f"  charts: {plot}")


def _pairs(words: list[str], what: str) -> dict[str, str]:
    """`M=256 N=128` by name; ArgumentError for a word of another form."""
    named = dict(word.partition("=")[::2] for word in words)
    for word, (name, value) in zip(words, named.items(), strict=False):
        if not name or not value:
            raise ArgumentError(f"{word!r} is not {what}: write NAME=VALUE, as in M=256")
    return named


def _count(name: str, value: str) -> int:
    if not value.isdigit() or int(value) < 1:
        raise ArgumentError(f"{name}={value} is no size; give a whole number, 1 or more")
    return int(value)


# ------------------------------------------------------------------------------------------ for people
def described(told: Simulation) -> str:
    """The account of a simulation as lines to read."""
    from tilewright.report.canvas import duration

    sizes = " ".join(f"{d}={n}" for d, n in told.sizes)
    lines = [f"{told.program} {sizes} on {told.machine}: {duration(told.seconds)}".replace("  ", " ")]
    if told.cycles is not None:
        lines[0] += f", {told.cycles:,.0f} cycles"
    if told.utilisation is not None:
        lines[0] += f", {told.utilisation:.2%} of the peak"
    lines += [f"  {part.seconds / told.seconds:6.1%}  {part.name}" for part in told.parts if part.seconds > 0]
    lines += [f"  {name}: {_shown(value)} {unit}".rstrip() for name, value, unit in told.numbers]
    lines += [line for layer in told.layers for line in _layer(layer)]
    lines += [f"  published: {text}" for text in told.facts]
    return "\n".join([*lines, *(f"  assumed: {text}" for text in told.assumptions)])


def _layer(layer: Simulation) -> list[str]:
    from tilewright.report.canvas import duration

    sizes = " ".join(f"{d}={n}" for d, n in layer.sizes)
    used = "" if layer.utilisation is None else f"  {layer.utilisation:7.2%}"
    waits = "  ".join(f"{p.name} {p.seconds / layer.seconds:.1%}" for p in layer.parts if p.seconds > 0)
    return [f"  {layer.program} {sizes}: {duration(layer.seconds)}{used}  {waits}".rstrip()]


def _shown(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
