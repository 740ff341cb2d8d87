"""Options that several commands share, and how the thread count of a command becomes that of the process."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from tilewright.errors import ArgumentError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads to use. Default: every core this process may use.")]

_MOST_THREADS = 4096


def use_threads(threads: int | None) -> None:
    """At most so many CPU threads from now on, in this process and those it starts; before the first kernel runs."""
    if threads is None:
        return
    if not 1 <= threads <= _MOST_THREADS:
        raise ArgumentError(f"--threads {threads}: give a whole number from 1 to {_MOST_THREADS}")
    os.environ["TILEWRIGHT_THREADS"] = str(threads)
