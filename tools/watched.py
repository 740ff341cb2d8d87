"""A child process that tells of one job a line, begun with #, and may die of any of them or hang."""

from __future__ import annotations

import os
import select
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """How a child ended: jobs that it told of, whether it was silent for too long, and its exit status."""

    told: int
    hung: bool
    status: int


def watched(command: list[str], patience: float = 60.0) -> Ended:
    """Run `command` and print what it tells; it is killed at the first line of another kind, or after `patience`."""
    told, hung = 0, False
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as child:
        assert child.stdout is not None
        while True:
            ready, _, _ = select.select([child.stdout], [], [], patience)
            hung = not ready
            line = child.stdout.readline().decode() if ready else ""
            if not line.startswith("#"):
                break
            print(line[1:].rstrip(), flush=True)
            told += 1
        if hung or line:
            child.kill()
    return Ended(told, hung, child.returncode)


__all__ = ["Ended", "watched"]
