"""How long a user waits: `import tilewright`, and the first token of the shipped model from a fresh process."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from tilewright.bench.result import Result
from tilewright.errors import TilewrightError
from tilewright.machines.cores import affinity

NAMES = ("import tilewright", "first token, empty cache", "first token, warm cache")
PROMPT = "def fibonacci(n):"
_IMPORT = "import time; t = time.perf_counter(); import tilewright; print(time.perf_counter() - t)"
_GENERATE = ("-m", "tilewright.cli", "generate", PROMPT, "--max-tokens", "1", "--temperature", "0")


def measure_startup(repeats: int = 5) -> Iterator[Result]:
    """Medians of `repeats` fresh processes for each wait, in seconds."""
    with tempfile.TemporaryDirectory() as warm:
        first_token_seconds(warm)  # fills the cache of compiled kernels
        waits: tuple[Callable[[], float], ...] = (import_seconds, _first_token_cold, lambda: first_token_seconds(warm))
        for name, wait in zip(NAMES, waits, strict=True):
            yield _result(name, [wait() for _ in range(repeats)])


def _result(name: str, seconds: list[float]) -> Result:
    return Result("startup", name, len(affinity()), {"s": round(statistics.median(seconds), 4)}, {"samples_s": seconds})


def import_seconds() -> float:
    """Seconds of `import tilewright` in a new process (the interpreter's own start is not counted)."""
    return float(_output([sys.executable, "-c", _IMPORT]))


def _first_token_cold() -> float:
    with tempfile.TemporaryDirectory() as empty:
        return first_token_seconds(empty)


def first_token_seconds(cache: str) -> float:
    """Seconds from starting `tilewright generate` to the first byte of its answer, with kernels cached in `cache`."""
    environment = {**os.environ, "TILEWRIGHT_CACHE_DIR": cache, "PYTHONUNBUFFERED": "1"}
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *_GENERATE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout and process.stderr
        first = process.stdout.read(1)
        elapsed = time.perf_counter() - start
        message = process.stderr.read().decode(errors="replace")
    if not first:
        raise TilewrightError(f"tilewright generate gave no token; it said: {message.strip()[-500:]}")
    return elapsed


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
