"""Where the time of a row operator goes on a GPU: torch.profiler's tables, and Nsight Compute's counters where it is.

`python -m tilewright.bench.rows_profile FAMILY NAME` runs one case once: what Nsight Compute is given to watch.
"""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tilewright.bench.rows_cases import RowCase, row_cases
from tilewright.errors import MachineError

if TYPE_CHECKING:
    from tilewright.bench.rows_problem import RowProblem

COUNTERS = {
    "gpu__time_duration.sum": "time",
    "dram__bytes_read.sum": "read from memory",
    "dram__bytes_write.sum": "written to memory",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "of memory's peak",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "of the SMs' peak",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps active",
    "launch__registers_per_thread": "registers",
}
"""Counters of Nsight Compute, and what tables call them."""


def profiled(case: RowCase) -> str:
    """Tables of one case: all three by torch.profiler, ours by Nsight Compute too, if it is installed."""
    setup, launch = _ready(case)
    calls: dict[str, Callable[[], object]] = {
        "tilewright": launch, "torch.compile": setup.peer(compiled=True), "torch": setup.peer(compiled=False),
    }  # fmt: skip
    pages = [f"{case.name}, {who}\n{_table(call)}" for who, call in calls.items()]
    if nsight() is not None:
        command = [sys.executable, "-m", "tilewright.bench.rows_profile", case.family, case.name]
        counted = counters(command, case.operator)
        pages.append(f"{case.name}, Nsight Compute\n" + "\n".join(f"{k:>20}: {v}" for k, v in counted.items()))
    return "\n\n".join(pages) + "\n"


def _ready(case: RowCase) -> tuple[RowProblem, Callable[[], object]]:
    """A case and its launch by the default design."""
    from tilewright.bench.gpu_case import facts_of
    from tilewright.bench.rows_problem import RowProblem
    from tilewright.design.default import default_design
    from tilewright.runtime.cuda.dispatch import machine
    from tilewright.runtime.cuda.evaluator import GpuEvaluator

    setup = RowProblem(case)
    problem = setup.problem()
    design = default_design(problem.program.kernel, facts_of(problem, machine(0)))
    return setup, GpuEvaluator(problem).launch(design)


def _table(call: Callable[[], object]) -> str:
    from torch.profiler import ProfilerActivity, profile

    call()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for _ in range(3):
            call()
    return str(seen.key_averages().table(sort_by="self_cuda_time_total", row_limit=8))


def nsight() -> str | None:
    """Nsight Compute's command, if it is installed."""
    return shutil.which("ncu")


def counters(command: Sequence[str], kernel: str) -> Mapping[str, str]:
    """`COUNTERS` of the first launch of `kernel` by a command. MachineError where Nsight Compute gives none."""
    tool = nsight()
    if tool is None:
        raise MachineError("Nsight Compute (ncu) is not on the path; install it, or read torch.profiler's tables")
    options = ["--clock-control", "none", "--csv", "--launch-count", "1", "--kernel-name", f"regex:^{kernel}"]
    run = subprocess.run(
        [tool, *options, "--metrics", ",".join(COUNTERS), *command], capture_output=True, text=True, check=False
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith('"')]
    rows = csv.DictReader(io.StringIO("\n".join(lines)))
    found = {r["Metric Name"]: f"{r['Metric Value']} {r['Metric Unit']}".strip() for r in rows}
    if not found:
        said = (run.stderr or run.stdout)[-300:]
        raise MachineError(f"Nsight Compute counted nothing, and may need permission to: {said}")
    return {title: found[name] for name, title in COUNTERS.items() if name in found}


def main(family: str, name: str) -> None:
    """One launch of a case, by its default design."""
    case = next(c for c in row_cases() if (c.family, c.name) == (family, name))
    _ready(case)[1]()


if __name__ == "__main__":
    main(*sys.argv[1:3])
