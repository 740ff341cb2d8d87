"""Options that several commands share, and how the thread count of a command becomes that of the process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer

from tilewright.errors import ArgumentError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads to use. Default: every core this process may use.")]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, or cuda:N for GPU number N.")]
KVCache = Annotated[
    str, typer.Option("--kv-cache", help="How keys and values are kept: auto, as the model is; fp8, in 8 bits.")
]

_MOST_THREADS = 4096


class Mode(StrEnum):
    """What may happen beside the program; see TILEWRIGHT_MODE."""

    LEARN = "learn"
    FROZEN = "frozen"
    GENERIC = "generic"


KernelMode = Annotated[
    Mode | None,
    typer.Option(
        help="learn: better kernels are designed meanwhile and swapped in; frozen: what was learned, and no compile, "
        "search or write; generic: generic kernels only. Default: TILEWRIGHT_MODE, and nothing is learned."
    ),
]


def use_threads(threads: int | None) -> None:
    """At most so many CPU threads from now on, in this process and those it starts; before the first kernel runs."""
    if threads is None:
        return
    if not 1 <= threads <= _MOST_THREADS:
        raise ArgumentError(f"--threads {threads}: give a whole number from 1 to {_MOST_THREADS}")
    os.environ["TILEWRIGHT_THREADS"] = str(threads)


@contextmanager
def shown_to_top(mode: Mode | None) -> Iterator[None]:
    """A program that is told to learn shows its table to `tilewright top`; no other writes anything for that."""
    if mode is not Mode.LEARN:
        yield
        return
    from tilewright.observe import live

    end = live.publish()
    try:
        yield
    finally:
        end()
