"""compute-sanitizer over small calls of every operator, and over kernels of every kind, on the GPU at hand.

The calls run without a tool first, which compiles their kernels and checks results against float64; then memcheck and
racecheck run side by side, each over shares of the calls. A tool that finds
anything, or does not end, makes the exit status 1.

    python tools/sanitize.py [--tools memcheck,racecheck] [--shares 3] [--seconds 200] [--out FOLDER] [NAMES ...]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "src")]

_OPTIONS = ("--print-limit", "20", "--report-api-errors", "no")


# ------------------------------------------------------------------------------------------------ processes
class Share:
    """One process over some of the calls, under a tool or under none, its output in a file."""

    def __init__(self, tool: str, number: int, calls: list[str], folder: Path) -> None:
        self.tool, self.number, self.calls = tool, number, calls
        self.path = folder / f".{tool}-{number}.log"
        command = [sys.executable, "-u", __file__, "--child", *calls]
        environment = dict(os.environ)
        if tool != "plain":
            command = ["compute-sanitizer", "--tool", tool, *_OPTIONS, *command]
            environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"  # an allocation of its own for every tensor
        self.log: IO[bytes] = self.path.open("wb")
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )

    def wait(self, deadline: float) -> None:
        """Until it ends, or is ended at the deadline."""
        try:
            self.process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # the tool and what it runs
            self.process.wait()
        self.log.close()

    @property
    def text(self) -> str:
        """What it said."""
        return self.path.read_text(errors="replace")

    @property
    def trouble(self) -> list[str]:
        """In a line each: calls that failed or were not made, and what the tool found."""
        done = {line.split(": ")[0][2:]: line for line in self.text.splitlines() if line.startswith("# ")}
        wrong = [name for name in self.calls if "ok, " not in done.get(name, "ok, ")]
        found = [done[name][2:] for name in wrong]
        if missed := [name for name in self.calls if name not in done]:
            found.append(f"not made, status {self.process.returncode}: {' '.join(missed)}")
        if self.tool != "plain":
            said = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", self.text)
            found += [s for s in said if not re.search(r"SUMMARY: 0 (errors|hazards)", s)] if said else ["no summary"]
        return found


def main() -> None:
    """All calls without a tool, then under each tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", default="memcheck,racecheck")
    parser.add_argument("--shares", type=int, default=3, help="processes of each tool")
    parser.add_argument("--seconds", type=float, default=200.0, help="for each of the two steps")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of one log for each tool")
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    from sanitize_calls import names

    calls = given.names or names()
    given.out.mkdir(parents=True, exist_ok=True)
    if shutil.which("compute-sanitizer") is None:
        sys.exit("compute-sanitizer is not on the path; it comes with the CUDA toolkit")
    bad = _step(["plain"], calls, 2 * given.shares, given)
    bad += _step(given.tools.split(","), calls, given.shares, given)
    sys.exit(1 if bad else 0)


def _step(tools: list[str], calls: list[str], shares: int, given: argparse.Namespace) -> int:
    """Run shares of the calls under each tool side by side; how many were in trouble."""
    begun = time.monotonic()
    running = [Share(t, i, calls[i::shares], given.out) for t in tools for i in range(shares) if calls[i::shares]]
    for share in running:
        share.wait(begun + given.seconds)
    bad = 0
    for tool in tools:
        mine = [s for s in running if s.tool == tool]
        (given.out / f"sanitize-{tool}.log").write_text("\n".join(s.text for s in mine))
        trouble = [line for s in mine for line in s.trouble]
        bad += bool(trouble)
        print(f"{tool:10} {sum(len(s.calls) for s in mine)} calls, {time.monotonic() - begun:.0f} s: ", end="")
        print("clean" if not trouble else "\n  ".join(["TROUBLE", *trouble]), flush=True)
        for share in mine:
            share.path.unlink()
    return bad


def _child(calls: list[str]) -> None:
    from sanitize_calls import run

    for name in calls:
        try:
            said = run(name)
        except Exception as error:  # the line says what happened
            said = f"{type(error).__name__}: {str(error)[:600]!r}"
        print(f"# {name}: {said}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2:])
    else:
        main()
