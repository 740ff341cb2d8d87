"""`tilewright bench cpu`: every job in a process of its own, its results as they come."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright.bench.cases import cpu_cases, matches, select
from tilewright.bench.checkpoint import Shape, write_checkpoint
from tilewright.bench.result import Result
from tilewright.bench.startup import measure_startup
from tilewright.errors import ArgumentError, TilewrightError

SECONDS, QUICK_SECONDS = 1.0, 0.2
MODEL_SECONDS = 20.0


@dataclass(frozen=True)
class Request:
    """What to measure: thread counts, a pattern that names must fit (None is all), and whether to be quick.

    A quick run leaves out the large cases and the whole model, and takes fewer samples.
    """

    threads: tuple[int, ...]
    only: str | None = None
    quick: bool = False

    def wants(self, *names: str) -> bool:
        """Whether a job that gives results of these names and families is asked for."""
        return self.only is None or matches(self.only, *names)


def measure(request: Request) -> Iterator[Result]:
    """All results that `request` asks for, as they are measured. ArgumentError where nothing fits it."""
    model = not request.quick and request.wants("decoder", "memory")
    startup = request.wants("startup")
    operators = bool(select(cpu_cases(), request.only, request.quick))
    if not (model or startup or operators):
        families = ", ".join(dict.fromkeys(case.family for case in cpu_cases()))
        raise ArgumentError(f"no case fits {request.only!r}; the families are {families}, decoder, memory and startup")
    for threads in request.threads if operators else ():
        yield from _work(
            threads,
            job="operators",
            only=request.only,
            quick=request.quick,
            seconds=QUICK_SECONDS if request.quick else SECONDS,
        )
    if model:
        yield from _model(max(request.threads), request)
    if startup:
        yield from measure_startup(repeats=3 if request.quick else 5)


def _model(threads: int, request: Request) -> Iterator[Result]:
    """The results of the whole model, from a checkpoint that exists as long as they are measured."""
    with tempfile.TemporaryDirectory(prefix="tilewright-bench-") as folder:
        write_checkpoint(Path(folder), Shape())
        if request.wants("memory"):
            yield from _work(threads, job="memory", folder=folder)
        if request.wants("decoder"):
            yield from _work(threads, job="decoder", folder=folder, seconds=MODEL_SECONDS)


def _work(threads: int, **job: Any) -> Iterator[Result]:
    """The results of one worker with `threads` threads; TilewrightError with its last words if it fails."""
    count = str(threads)
    environment = {**os.environ, "TILEWRIGHT_THREADS": count, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    command = [sys.executable, "-m", "tilewright.bench.worker", json.dumps({**job, "threads": threads})]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process,
    ):
        assert process.stdout
        try:
            for line in process.stdout:
                yield Result.from_json(json.loads(line))
        except GeneratorExit:  # whoever listened has gone
            process.terminate()
            raise
        if process.wait():
            errors.seek(0)
            words = errors.read().strip().splitlines() or ["nothing"]
            raise TilewrightError(
                f"the {job['job']} worker with {threads} threads ended with {process.returncode}: {words[-1]}"
            )


def parse_threads(text: str, available: int) -> tuple[int, ...]:
    """`1,2` as numbers; ArgumentError for anything but counts from 1 to the `available` cores."""
    parts: Sequence[str] = text.split(",")
    if not all(p.strip().isdigit() and 1 <= int(p) <= available for p in parts):
        raise ArgumentError(f"--threads {text}: give counts from 1 to {available}, such as 1,{available}")
    return tuple(dict.fromkeys(int(p) for p in parts))


def source_root(start: Path) -> Path:
    """The checkout of Tilewright around `start`: the nearest folder upwards with benchmarks/floors.toml.

    ArgumentError where there is none.
    """
    for folder in (start, *start.parents):
        if (folder / "benchmarks" / "floors.toml").is_file():
            return folder
    raise ArgumentError(f"{start} is not inside a checkout of Tilewright (no benchmarks/floors.toml); change to one")
