"""Peak memory of a whole model, in a process that holds Tilewright and nothing to compare it with."""

from __future__ import annotations

import re
from pathlib import Path

from tilewright.bench import engine_side
from tilewright.bench.checkpoint import Shape
from tilewright.bench.engine_side import Tilewright, prompts
from tilewright.bench.result import Result, rounded
from tilewright.errors import MachineError

NAME = "peak resident memory"
STEPS = 32


def memory_result(folder: Path, shape: Shape, threads: int) -> Result:
    """Peak resident memory of this process after a prompt and STEPS tokens, against weights plus KV cache.

    For a process of its own that runs Tilewright alone: importing torch would count as much as a small model.
    """
    side = Tilewright(folder)
    side.prefill(next(prompts(shape)))
    for _ in range(STEPS):
        side.step()
    peak, need = peak_resident_bytes(), shape.weight_bytes + shape.kv_bytes(engine_side.PROMPT_TOKENS + STEPS)
    values = {"peak_mb": peak / 1e6, "need_mb": need / 1e6, "peak_over_need": peak / need}
    return Result("memory", NAME, threads, rounded(values))


def peak_resident_bytes() -> int:
    """The most memory this process ever had resident.

    From /proc: getrusage would count what the parent held when it started this process. Raises MachineError
    where there is no /proc.
    """
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if not found:
        raise MachineError("peak memory is read from /proc/self/status, which this system lacks; run it on Linux")
    return int(found[1]) * 1024
