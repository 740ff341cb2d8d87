"""A run as a user watches it: what it will take, a bar, and each result when it is there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tilewright.bench import cpu, record
from tilewright.bench.plan import Job, estimate
from tilewright.bench.result import Result
from tilewright.machines.machine import Machine

_FIGURES = {
    "ratio": "{:.2f}x",
    "default_ratio": "{:.2f}x by default",
    "us": "{:.2f} us",
    "gflops": "{:.0f} GFLOP/s",
    "tflops": "{:.0f} TFLOP/s",
    "step": "{:.2f}x the rung before",
    "gbs": "{:.1f} GB/s",
    "bandwidth": "{:.0%} of bandwidth",
    "tokens_per_s": "{:.1f} tokens/s",
    "peak_over_need": "{:.0%} of need",
    "cpu_ms": "{:.1f} ms of CPU",
    "wall_ms": "{:.1f} ms",
    "ms": "{:.2f} ms",
    "of_eager": "{:.2f}x eager's time",
    "of_compiled": "{:.2f}x compiled's time",
    "s": "{:.3f} s",
    "of_best": "{:.0%} of the best",
    "of_best_16": "{:.0%} within 16 trials",
    "spearman": "rank correlation {:.2f}",
    "spearman_corrected": "{:.2f} corrected",
    "ceiling": "{:.2f} the truth",
    "over_random": "{:.2f}x random",
    "seconds_to_best": "best after {:.0f} s",
    "same": "{:.0%} the same",
    "again_ms": "{:.1f} ms again",
    "of_peer": "{:.2f}x the time of the better peer",
    "compiles": "{:.0f} compiles",
    "waste": "{:.0%} padding",
    "noise": "noise {:.1%}",
}


def watch(jobs: Sequence[Job], measured: Iterable[Result], quiet: bool = False) -> list[Result]:
    """The results of `jobs` as they come, under a bar on stderr that knows how long each takes.

    `quiet` does not print them one by one.
    """
    console, results = Console(stderr=True), []
    steps = [step for job in jobs for step in job.steps]
    total = estimate(jobs)
    console.print(f"{len(steps)} results, about {_duration(total)}", highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(steps[0].name, total=total)
        for count, result in enumerate(measured, start=1):
            results.append(result)
            following = steps[count].name if count < len(steps) else ""
            progress.update(bar, completed=sum(s.seconds for s in steps[:count]), description=following)
            if not quiet:
                console.print(summary(result), highlight=False, markup=False, soft_wrap=True)
    return results


def summary(result: Result) -> str:
    """One line about a result: the figures that a reader looks for first."""
    figures = [form.format(result.metrics[key]) for key, form in _FIGURES.items() if key in result.metrics]
    return f"{result.name:44} {result.threads:3} threads  " + (result.error or "  ".join(figures))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def publish(results: Sequence[Result], machine: Machine, kind: str, save: bool, as_json: bool) -> None:
    """Write a record of `results` to this checkout's benchmarks/results/ and to standard output, as asked."""
    found = record.describe(machine, results, record.this_command(), cpu.checkout(Path.cwd()))
    if save:
        folder = cpu.source_root(Path.cwd()) / "benchmarks" / "results"
        print(f"wrote {record.save(found, folder, kind)}", file=sys.stderr)
    if as_json:
        print(json.dumps(found))
