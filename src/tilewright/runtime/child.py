"""A child process that answers jobs in JSON, one a line, and may die of any of them.

The parent watches: a job that takes too long, a child that takes too much memory, a child that is killed by a signal.
Each becomes a `ChildDied` with a status and a reason; the child is then gone, and the next job starts another.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

from tilewright.errors import TilewrightError
from tilewright.runtime import fault

POLL_SECONDS = 0.02
START_SECONDS = 60.0
STARVED = 4.0
"""So many times its time a job may take that uses less than half of it as time of a processor."""

_PAGE, _TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")

Explain = Callable[[fault.Fault], str]


class ChildDied(Exception):
    """A job ended its process: `status` is crash, hang or memory."""

    def __init__(self, status: Literal["crash", "hang", "memory"], reason: str) -> None:
        super().__init__(reason)
        self.status: Literal["crash", "hang", "memory"] = status
        self.reason = reason


class ChildError(TilewrightError):
    """A child that could not be started, or that failed at what no candidate is to blame for."""


class Child:
    """A process running `python -m MODULE`, started by the first job and again after each death.

    `setup` is sent first to every new process. `memory_limit` bounds, in bytes, what a job may add to the memory that
    the process had after its setup. `explain` puts the address of a fault in words.
    """

    def __init__(
        self,
        module: str,
        setup: Mapping[str, Any],
        folder: Path,
        *,
        memory_limit: int,
        environment: Mapping[str, str] | None = None,
        explain: Explain = lambda found: f"address {found.address:#x}",
    ) -> None:
        self.starts = 0
        self.ready: dict[str, Any] = {}
        """What the running process answered to its setup."""
        self._module, self._setup, self._limit, self._explain = module, dict(setup), memory_limit, explain
        self._environment = {**os.environ, **_path(), **(environment or {})}
        self._log = folder / f"{id(self)}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._faults: IO[bytes] | None = None
        self._base = 0
        self._pending = b""

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._process is None else self._process.pid

    def renewed(self, setup: Mapping[str, Any], memory_limit: int, explain: Explain) -> Child:
        """The same process, set up anew; its module has to know how. ChildError where it cannot."""
        self._setup, self._limit, self._explain = dict(setup), memory_limit, explain
        if self._process is not None and self._process.poll() is not None:
            self.stop()  # it ended meanwhile: the next job starts another
        if self._process is not None:
            self._base = 0
            self._set_up()
        return self

    def ask(self, job: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to a job within `seconds`; ChildDied if there is none, and the process is gone."""
        if self._process is None:
            self._start()
        try:
            return self._exchange(job, seconds)
        except BaseException as error:  # an interrupt too: whoever asks next must not get this answer
            stopped = self._process is None
            self.stop()
            if stopped and isinstance(error, Exception):  # by another thread, in the middle of the exchange
                raise ChildDied("crash", "it was stopped while it worked") from None
            raise

    def stop(self) -> None:
        """Kill the process; the next job starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, self._faults):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    # ------------------------------------------------------------------------------------------ internals
    def _start(self) -> None:
        read_end, write_end = os.pipe()
        command = [sys.executable, "-P", "-m", self._module, str(write_end), str(os.getpid())]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                pass_fds=(write_end,),
                # Ctrl-C is for the parent, which decides. A session of its own would keep it away too, but Linux
                # shares cores out between sessions, whatever the priority of the processes in them.
                process_group=0,
            )
        os.close(write_end)
        self._faults, self._pending, self._base = os.fdopen(read_end, "rb"), b"", 0
        self.starts += 1
        self._set_up()

    def _set_up(self) -> None:
        """Send the setup, and take in what the process says to it."""
        try:
            answer = self._exchange(self._setup, START_SECONDS)
        except ChildDied as died:
            self.stop()
            raise ChildError(f"the process that tries designs did not start: {died.reason}; {self._said()}") from None
        if "error" in answer:
            self.stop()
            raise ChildError(f"the process that tries designs cannot work: {answer['error']}")
        self.ready, self._base = answer, self._memory()

    def _exchange(self, job: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None
        begun, worked, waits = time.monotonic(), self._processor_seconds(), seconds_queued(process.pid)
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if ready.select(POLL_SECONDS):
                    more = os.read(process.stdout.fileno(), 1 << 16)
                    if not more:
                        raise self._death()
                    self._pending += more
                    continue
                self._watch(begun, worked, waits, seconds)
        line, _, self._pending = self._pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _watch(self, begun: float, worked: float, waits: Mapping[str, float], seconds: float) -> None:
        """ChildDied where a job takes too much. Time counts while the process has a processor: it may have to wait."""
        assert self._process is not None
        if self._base and self._memory() - self._base > self._limit:
            raise ChildDied("memory", f"it took more than {self._limit >> 20} MiB of memory and was killed")
        if (taken := time.monotonic() - begun) <= seconds:
            return
        queued = max((now - waits.get(t, 0.0) for t, now in seconds_queued(self._process.pid).items()), default=0.0)
        idle = self._processor_seconds() - worked < seconds / 2
        if taken - queued > (STARVED * seconds if idle else seconds):
            raise ChildDied("hang", f"it did not end within {seconds:.1f} s and was killed")

    def _processor_seconds(self) -> float:
        """That the process has used so far; infinite where the system does not say."""
        assert self._process is not None
        try:
            _, _, rest = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")
            user, system = rest.split()[11:13]
            return (int(user) + int(system)) / _TICKS
        except (OSError, ValueError):
            return math.inf

    def _memory(self) -> int:
        """Bytes that the process holds; 0 where the system does not say."""
        assert self._process is not None
        try:
            _, resident, shared = map(int, Path(f"/proc/{self._process.pid}/statm").read_text().split()[:3])
            return (resident - shared) * _PAGE  # mapped files do not count
        except (OSError, ValueError):
            return 0

    def _death(self) -> ChildDied:
        """Why the process has ended by itself."""
        assert self._process is not None and self._faults is not None
        code = self._process.wait()
        if code >= 0:
            said = self._said()
            status: Literal["crash", "memory"] = "memory" if "MemoryError" in said else "crash"
            return ChildDied(status, f"its process ended with code {code}: {said}")
        name = signal.Signals(-code).name
        found = fault.read(self._faults.read(24))
        if found is None or found.signal != -code:
            return ChildDied("crash", f"its process died of {name}: {self._said()}".rstrip(": "))
        what = "executed" if found.signal == signal.SIGILL else "wrote" if found.write else "read or jumped"
        return ChildDied("crash", f"{name}: it {what} at {self._explain(found)}")

    def _said(self) -> str:
        """The last line on its standard error."""
        with suppress(OSError):
            lines = self._log.read_text(errors="replace").strip().splitlines()
            return lines[-1][:300] if lines else ""
        return ""


def seconds_queued(pid: int) -> dict[str, float]:
    """For each thread of a process, how long it was ready to run and had no processor; empty where no system says."""
    found = {}
    with suppress(OSError, ValueError, IndexError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found[task.name] = int((task / "schedstat").read_text().split()[1]) * 1e-9
    return found


def _path() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


# ------------------------------------------------------------------------------------------ in the child
Handler = Callable[[dict[str, Any]], dict[str, Any]]


def serve(handler: Handler) -> None:
    """Answer jobs from standard input until it ends; `sys.argv[1:]` are where faults are reported, and the parent.

    What a kernel or a library prints goes to standard error: standard output is kept for answers.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _die_with_parent()
    fault.install(int(sys.argv[1]))
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer = handler(job)
        except MemoryError:
            raise
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def bound_memory(nbytes: int) -> None:
    """Let this process map at most `nbytes` more than now, and be the first to go when memory runs out."""
    with suppress(OSError, ValueError, ImportError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * _PAGE + nbytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        Path("/proc/self/oom_score_adj").write_text("1000")


def _die_with_parent() -> None:
    """End when the parent does, even inside a kernel that never returns (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != int(sys.argv[2]):
            os._exit(1)


__all__ = ["Child", "ChildDied", "ChildError", "bound_memory", "seconds_queued", "serve"]
