"""`tilewright show`: what an operator, or a program of one's own, becomes on its way to machine code."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from tilewright.cli_options import AsJson
from tilewright.errors import ArgumentError


class Stage(StrEnum):
    """What `show` can show, in the order in which a program passes the stages."""

    TILE = "tile"
    DESIGN = "design"
    SCHED = "sched"
    THREAD = "thread"
    LL = "ll"
    ASM = "asm"
    CU = "cu"
    PTX = "ptx"
    SASS = "sass"
    USAGE = "usage"


def show(
    operator: Annotated[str, typer.Argument(help="Name of an operator, such as matmul, or file.py:name of your own.")],
    given: Annotated[
        list[str] | None, typer.Argument(metavar="[SIZES]...", help="Its sizes: M=1 N=4096 K=4096.")
    ] = None,
    *,
    sizes: Annotated[
        str | None, typer.Option(help="The same as 1,4096,4096 (dims of the result first) or M=1,N=4096,K=4096.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Element type of the tensors: f32, bf16, f16. Default: bf16 for a GPU, else f32.")
    ] = None,
    stage: Annotated[Stage, typer.Option(help="Which stage of the way to machine code.")] = Stage.SCHED,
    machine: Annotated[
        str | None, typer.Option(help="Another machine to design for, such as h200. Default: this one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what an operator becomes at fixed sizes on this machine or another, at any stage."""
    from tilewright.machines.machine import Machine
    from tilewright.runtime.subject import named as find
    from tilewright.show import dims_of, stage_text

    known = Machine.detect() if machine is None else Machine.named(machine)
    dtype = dtype or known.usual_dtype
    named = parse_sizes(_one_text(given or [], sizes), dims_of(find(operator), dtype), operator)
    text = stage_text(operator, named, dtype, stage.value, known)
    if as_json:
        text = json.dumps({"operator": operator, "sizes": named, "dtype": dtype, "stage": stage.value, "text": text})
    typer.echo(text)


def _one_text(given: list[str], sizes: str | None) -> str:
    if given and sizes is not None:
        raise ArgumentError(f"{' '.join(given)} and --sizes {sizes}: leave one of them out")
    return sizes or ",".join(given)


def parse_sizes(text: str, dims: list[str], operator: str) -> dict[str, int]:
    """`1,4096,4096` in the order of `dims`, or `M=1,K=...` in any; ArgumentError unless all are given, at least 0."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    pairs = [part.split("=", 1) for part in parts] if "=" in text else list(zip(dims, parts, strict=False))
    given, wanted = f"sizes {text}: " if text else "", " ".join(f"{d}=.." for d in dims)
    usage = f"{given}{operator} needs {wanted}, or --sizes with {len(dims)} numbers in that order"
    if len(parts) != len(dims) or any(len(pair) != 2 or not pair[1].strip().isdigit() for pair in pairs):
        raise ArgumentError(usage)
    named = {name.strip(): int(size) for name, size in pairs}
    if set(named) != set(dims):
        raise ArgumentError(usage)
    return {d: named[d] for d in dims}
