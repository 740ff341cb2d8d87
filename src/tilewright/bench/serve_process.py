"""Processes that serve a trace (`serve_side`): one to its end, or several in turns, a pass over the trace each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tilewright.errors import TilewrightError

READY = "ready"
"""What a process says that waits to be told to serve a pass."""


class Process:
    """A process that serves in a mode from a cache folder; `task` is that of `serve_side`, `errors` are written to."""

    def __init__(self, folder: Path, mode: str, numerics: str, task: dict[str, Any], errors: IO[str]) -> None:
        environment = {
            **os.environ, "TILEWRIGHT_CACHE_DIR": str(folder), "TILEWRIGHT_MODE": mode,
            "TILEWRIGHT_NUMERICS": numerics, "TILEWRIGHT_THREADS": "1",
        }  # fmt: skip
        self._mode, self._errors = mode, errors
        command = [sys.executable, "-m", "tilewright.bench.serve_side", json.dumps(task)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )

    def pass_(self) -> None:
        """Let it serve a pass, once it has said that it is ready."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def line(self) -> str:
        """The next thing that it says; TilewrightError with what it complained of where it ended badly."""
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        if not said:
            self._errors.seek(0)
            ended = self._process.wait()
            raise TilewrightError(
                f"serving in mode {self._mode} ended with {ended}: {self._errors.read().strip()[-300:]}"
            )
        return said

    def end(self) -> None:
        """Whatever it does, it ends."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def process(folder: Path, mode: str, numerics: str, task: dict[str, Any]) -> Iterator[Process]:
    """A process that is gone after the `with` block."""
    with tempfile.TemporaryFile("w+") as errors:
        made = Process(folder, mode, numerics, task, errors)
        try:
            yield made
        finally:
            made.end()


def told(line: str) -> dict[str, Any]:
    """What a process found, from its last line."""
    found: dict[str, Any] = json.loads(line)
    return found


def in_turns(processes: Sequence[Process], passes: int) -> list[dict[str, Any]]:
    """What each found in so many passes. All are ready before the first; one serves while the others wait.

    So the moods of a machine (clocks, neighbours on its cores) meet all of them alike.
    """
    last = [""] * len(processes)
    for _ in range(passes):
        for n, one in enumerate(processes):
            one.pass_()
            last[n] = one.line()
    return [told(line) for line in last]


__all__ = ["READY", "Process", "in_turns", "process", "told"]
