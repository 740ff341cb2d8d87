"""`tilewright bench cpu`: every job in a process of its own, its results as they come."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tilewright.bench.checkpoint import write_checkpoint
from tilewright.bench.plan import Job, Request, check_peers, plan
from tilewright.bench.result import Result
from tilewright.bench.startup import measure_startup
from tilewright.errors import ArgumentError, TilewrightError

__all__ = ["Request", "measure", "parse_threads", "run_jobs", "source_root"]


def measure(request: Request) -> Iterator[Result]:
    """All results that `request` asks for, as they are measured. ArgumentError where nothing fits it."""
    yield from run_jobs(plan(request))


def run_jobs(jobs: Sequence[Job]) -> Iterator[Result]:
    """The results of all jobs, as they are measured; MissingPackage where what they compare with is not installed.

    A job that breaks off gives the results that it still owed as failed ones, and the run goes on.
    """
    check_peers(jobs)
    return _measured(jobs)


def _measured(jobs: Sequence[Job]) -> Iterator[Result]:
    with tempfile.TemporaryDirectory(prefix="tilewright-bench-") as name:
        folder = Path(name)
        for job in jobs:
            if job.shape is not None and not any(folder.iterdir()):
                write_checkpoint(folder, job.shape)
            yield from _all_results(job, folder)


def _all_results(job: Job, folder: Path) -> Iterator[Result]:
    """One result for each step of `job`; those that its process no longer gave say why."""
    owed = list(job.steps)
    try:
        for result in _run(job, folder):
            owed = [step for step in owed if (step.family, step.name) != (result.family, result.name)]
            yield result
    except TilewrightError as error:
        for step in owed:
            yield Result(step.family, step.name, step.threads, error=str(error))


def _run(job: Job, folder: Path) -> Iterator[Result]:
    if job.kind == "startup":
        yield from measure_startup(**job.options)
    else:
        where = {} if job.shape is None else {"folder": str(folder)}
        yield from _work(job.threads, limit=job.limit, job=job.kind, **job.options, **where)


def _work(threads: int, limit: float | None = None, **job: Any) -> Iterator[Result]:
    """The results of one worker with `threads` threads; TilewrightError with its last words if it fails.

    It is ended after `limit` seconds.
    """
    count = str(threads)
    # The roof lies in large pages, as NumPy asks for them; torch's tensors shall too, which serves both sides.
    pages = {"THP_MEM_ALLOC_ENABLE": "1", **os.environ}
    environment = {**pages, "TILEWRIGHT_THREADS": count, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    command = [sys.executable, "-m", "tilewright.bench.worker", json.dumps({**job, "threads": threads})]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process,
    ):
        assert process.stdout
        ender = threading.Timer(limit or 0.0, process.kill)
        if limit is not None:
            ender.start()
        try:
            for line in process.stdout:
                yield Result.from_json(json.loads(line))
        except GeneratorExit:  # whoever listened has gone
            process.terminate()
            raise
        finally:
            ended = limit is not None and not ender.is_alive()
            ender.cancel()
        if process.wait():
            errors.seek(0)
            words = errors.read().strip().splitlines() or ["nothing"]
            late = f" after its limit of {limit:.0f} s" if ended else ""
            raise TilewrightError(
                f"the {job['job']} worker with {threads} threads ended with {process.returncode}{late}: {words[-1]}"
            )


def parse_threads(text: str | None, available: int) -> tuple[int, ...]:
    """`1,2` as numbers, one and all where nothing is said; ArgumentError beyond 1 to the `available` cores."""
    if text is None:
        return tuple(sorted({1, available}))
    parts: Sequence[str] = text.split(",")
    if not all(p.strip().isdigit() and 1 <= int(p) <= available for p in parts):
        raise ArgumentError(f"--threads {text}: give counts from 1 to {available}, such as 1,{available}")
    return tuple(dict.fromkeys(int(p) for p in parts))


def checkout(start: Path) -> Path | None:
    """As `source_root`; None where there is none."""
    return next((f for f in (start, *start.parents) if (f / "benchmarks" / "floors.toml").is_file()), None)


def source_root(start: Path) -> Path:
    """The checkout of Tilewright around `start`: the nearest folder upwards with benchmarks/floors.toml.

    ArgumentError where there is none.
    """
    if found := checkout(start):
        return found
    raise ArgumentError(f"{start} is not inside a checkout of Tilewright (no benchmarks/floors.toml); change to one")
