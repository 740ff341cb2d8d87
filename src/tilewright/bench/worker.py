"""The process that measures: `python -m tilewright.bench.worker JOB`, where JOB is JSON; one JSON result a line.

A process of its own for each job: its thread count is fixed before any library starts, and its memory is its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tilewright.bench.cases import cpu_cases, select
from tilewright.bench.checkpoint import Shape
from tilewright.bench.result import Result
from tilewright.errors import TilewrightError


def operator_results(threads: int, only: str | None, quick: bool, seconds: float) -> Iterator[Result]:
    """Every operator case that is asked for."""
    from tilewright.bench import peers
    from tilewright.bench.operators import run_case

    bandwidth = _ready(threads)
    peers.keep_freed_memory()
    for case in select(cpu_cases(), only, quick):
        try:
            yield run_case(case, threads, bandwidth, seconds)
        except TilewrightError as error:
            yield Result(case.family, case.name, threads, error=f"{type(error).__name__}: {error}")


def decoder(threads: int, folder: str, seconds: float) -> Iterator[Result]:
    """The whole model beside transformers."""
    from tilewright.bench.decoder import decoder_results

    yield from decoder_results(Path(folder), Shape(), threads, _ready(threads), seconds)


def memory(threads: int, folder: str) -> Iterator[Result]:
    """Peak memory of the whole model; torch stays out of this process."""
    from tilewright.bench.decoder import memory_result

    yield memory_result(Path(folder), Shape(), threads)


JOBS: dict[str, Callable[..., Iterator[Result]]] = {"operators": operator_results, "decoder": decoder, "memory": memory}


def _ready(threads: int) -> dict[str, float]:
    """Set torch's threads; the bandwidth in GB/s that this many threads were measured to reach."""
    from tilewright.bench import peers
    from tilewright.machines.bandwidth import measured_bandwidth
    from tilewright.machines.machine import Machine

    peers.set_threads(threads)
    measured = measured_bandwidth(Machine.detect())
    return {"read": measured.read / 1e9, "copy": max(measured.copy, measured.copy_nontemporal) / 1e9}


def main(argument: str) -> None:
    """Run the job and print its results as they come."""
    job: dict[str, Any] = json.loads(argument)
    for result in JOBS[job.pop("job")](**job):
        print(json.dumps(result.to_json()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
