"""`tilewright trace`: the shapes that a program meets, recorded, made up and replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

trace = typer.Typer(help="Shapes that a program meets: recorded without any data, and replayed.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
TraceFile = Annotated[Path, typer.Argument(metavar="FILE", help="The trace.")]


@trace.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def record(
    file: TraceFile,
    command: Annotated[
        list[str], typer.Argument(metavar="PROGRAM ARGS", help="script.py and its arguments, or -m MODULE and them.")
    ],
) -> None:
    """Run a Python program and write down which operators ran on which sizes, and how often; never what was in them."""
    from tilewright.observe.record import record_program

    found = record_program(command)
    found.save(file)
    launches = sum(call.count for call in found.calls)
    typer.echo(f"wrote {file}: {launches} launches of {len(found.calls)} shapes", err=True)


@trace.command()
def served(
    file: TraceFile,
    requests: Annotated[int, typer.Option(help="How many requests.")] = 2000,
    longest: Annotated[int, typer.Option(help="Tokens of the longest prompt that may be drawn.")] = 2048,
    new: Annotated[int, typer.Option(help="Tokens generated for each.")] = 0,
    seed: Annotated[int, typer.Option(help="Makes the trace repeatable.")] = 0,
) -> None:
    """Make up a trace of requests whose lengths have a heavy tail."""
    from tilewright.observe.served import served_trace

    served_trace(requests, longest, seed, new).save(file)
    typer.echo(f"wrote {file}: {requests} requests", err=True)


@trace.command()
def replay(
    file: TraceFile,
    most: Annotated[int | None, typer.Option(help="Run each shape this often at most.")] = None,
    seed: Annotated[int, typer.Option(help="Makes the operands repeatable.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Run the calls of a trace again, on operands made up, and say how long each shape takes."""
    from tilewright.observe.replay import replay as replayed
    from tilewright.observe.trace import Trace

    for found in replayed(Trace.load(file), most=most, seed=seed):
        if as_json:
            typer.echo(json.dumps(found.to_dict()))
            continue
        sizes = " ".join(f"{d}={n}" for d, n in found.call.sizes)
        times = f"first {found.first_seconds * 1e3:8.2f} ms   then {found.seconds * 1e6:10.1f} us"
        typer.echo(f"{times}   {found.runs:6}x {found.call.operator} {sizes}")


__all__ = ["trace"]
