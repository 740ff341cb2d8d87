"""`tilewright trace`, `top` and `why`: the shapes that a program meets, and the kernels that answer them."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from tilewright.cli_options import AsJson
from tilewright.errors import ArgumentError

trace = typer.Typer(help="Shapes that a program meets: recorded without any data, and replayed.", no_args_is_help=True)

TraceFile = Annotated[Path, typer.Argument(metavar="FILE", help="The trace.")]


@trace.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def record(
    file: TraceFile,
    command: Annotated[
        list[str], typer.Argument(metavar="PROGRAM ARGS", help="script.py and its arguments, or -m MODULE and them.")
    ],
) -> None:
    """Run a Python program and write down which operators ran on which sizes, and how often; never what was in them.

    Operators are those of tilewright.ops and of models: a program's own, by tw.launch, are not written down.
    """
    from tilewright.observe.record import record_program

    found = record_program(command)
    found.save(file)
    launches = sum(call.count for call in found.calls)
    none = "" if launches else "; only operators of tilewright.ops and of models are written down"
    typer.echo(f"wrote {file}: {launches} launches of {len(found.calls)} shapes{none}", err=True)


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


def top(
    file: Annotated[
        Path | None, typer.Argument(help="What a program shows. Default: that of the last to write.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the table and end.")] = False,
    rows: Annotated[int, typer.Option(help="The most valuable shapes to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """A live table of a running program: shapes, kernels, hits, misses, swaps, saved seconds. Ctrl-C ends it."""
    from rich.console import Console
    from rich.live import Live

    from tilewright.observe import live
    from tilewright.observe.top import rendered

    if as_json:
        typer.echo(json.dumps(live.read(file)))
        return
    console = Console()
    if once:
        console.print(rendered(live.read(file), rows))
        return
    with suppress(KeyboardInterrupt), Live(rendered(live.read(file), rows), console=console) as shown:
        while True:
            time.sleep(1.0)
            shown.update(rendered(live.read(file), rows))


def why(
    operator: Annotated[str, typer.Argument(help="Name of an operator, such as matmul, or file.py:name of your own.")],
    sizes: Annotated[list[str] | None, typer.Argument(help="Its sizes: M=16 N=4096 K=4096.")] = None,
    *,
    dtype: Annotated[
        str | None, typer.Option(help="Element type of the tensors: f32, bf16, f16. Default: bf16 on a GPU, else f32.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where the tensors lie: cpu, cuda, or cuda:1 and so on.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Which kernel would run for a call, and why: what the book knows, what the mode allows, what was learned."""
    from tilewright.observe.why import why as asked

    answer = asked(operator, _sizes(sizes or []), dtype, device=device)
    typer.echo(json.dumps(answer.to_dict()) if as_json else answer.text())


def _sizes(texts: list[str]) -> dict[str, int]:
    pairs = [text.partition("=") for text in texts]
    if wrong := [text for text, (name, _, n) in zip(texts, pairs, strict=True) if not name or not n.isdigit()]:
        raise ArgumentError(f"{wrong[0]!r} is no size; write M=16")
    return {name: int(n) for name, _, n in pairs}


__all__ = ["top", "trace", "why"]
