"""One process that serves a trace through a small model: `python -m tilewright.bench.serve_side JSON`, JSON out.

Mode, numerics, threads and the cache folder come from the environment, as for any user.
"""

from __future__ import annotations

import gc
import hashlib
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.bench.serve_process import READY
from tilewright.bench.serve_shake import shaken
from tilewright.models.decoder import PREFILL_CHUNK, Decoder, Want
from tilewright.observe.served import served_trace
from tilewright.runtime import learner, modes
from tilewright.runtime.background import Budget
from tilewright.runtime.events import events
from tilewright.runtime.table import TABLE
from tilewright.runtime.trigger import Trigger

CONTEXT = 2304


@dataclass(frozen=True)
class Task:
    """What to serve: `requests` of the trace, `passes` times; where the mode learns, first for `limit` seconds more.

    A search is triggered by `cost` seconds that pay back; it ends after `trials` or `search_seconds`. With `shake` the
    trace is served for so many seconds while slots are swapped on purpose (`serve_shake`). Where passes are `asked` for
    each waits for a line on standard input.
    """

    folder: str
    requests: int
    passes: int
    cost: float = 30.0
    trials: int = 10
    search_seconds: float = 30.0
    limit: float = 0.0
    device: str = "cpu"
    shake: float = 0.0
    asked: bool = False


class Server:
    """A model that answers one request after the other, and what it took."""

    def __init__(self, task: Task) -> None:
        self.decoder = Decoder.from_folder(Path(task.folder), device=task.device)
        self.cache = self.decoder.new_cache(1, CONTEXT)
        self.decoder.reserve(self.cache, 1, CONTEXT - 1)
        vocabulary, random = self.decoder.config.vocab, np.random.default_rng(0)
        self.prompts = [random.integers(0, vocabulary, r.prompt).tolist() for r in served_trace(task.requests).requests]
        if task.device != "cpu":
            self._record_ahead()

    def _record_ahead(self) -> None:
        """Passes for all lengths of the trace, as a server records them before it answers: on a GPU each takes ms."""
        lengths = {len(ids) for ids in self.prompts}
        for n in sorted({n % PREFILL_CHUNK or PREFILL_CHUNK for n in lengths}):
            self.decoder.plan(self.cache, 0, 1, n, Want.LAST).make_ready()
        self.decoder.plan(self.cache, 0, 1, PREFILL_CHUNK, Want.CACHE).make_ready()

    def serve(self) -> dict[str, Any]:
        """One pass over the trace: microseconds of each request, when it began and ended, and a hash of all logits."""
        digest, took, began = hashlib.sha256(), [], time.time()
        for ids in self.prompts:
            begun = time.perf_counter_ns()
            logits = self._answer(ids)
            took.append((time.perf_counter_ns() - begun + 500) // 1000)
            digest.update(logits.tobytes())
        ended = round(time.time(), 3)
        return {"us": took, "began": round(began, 3), "ended": ended, "hash": digest.hexdigest()}

    def _answer(self, ids: Sequence[int]) -> Any:
        """Logits after a prompt."""
        self.cache.clear(0)
        for start in range(0, len(ids), PREFILL_CHUNK):
            part = ids[start : start + PREFILL_CHUNK]
            last = start + len(part) == len(ids)
            logits = self.decoder.prefill(self.cache, 0, part, Want.LAST if last else Want.CACHE)
        return logits


def swept(server: Server) -> dict[str, Any]:
    """A pass over the trace, garbage collected before and not while it is served, as servers do when nobody waits."""
    gc.collect()
    gc.disable()
    try:
        return server.serve()
    finally:
        gc.enable()


def serve(task: Task) -> dict[str, Any]:
    """All passes, the passes while something was learned, and what was counted."""
    begun = time.perf_counter()
    if modes.may_learn() and task.limit:
        modes.learning_begins()  # before anything is bound
    server = Server(task)
    server.decoder.prefill(server.cache, 0, server.prompts[0])  # compiles what is the same for all lengths
    gc.collect()
    gc.freeze()  # as servers do once they are ready: what stays for good is not looked through again and again
    loaded = time.perf_counter() - begun
    began = time.time()
    learning = _learned(server, task) if modes.may_learn() and task.limit else []
    shaking, designs = shaken(task.shake, server.serve) if task.shake else ([], 0)
    done = len(events())
    passes = [swept(server) for _ in _turns(task)]
    assert len(events()) == done, "something was swapped while nothing was to be learned"
    return {
        "load_s": loaded,
        "tokens": [len(p) for p in server.prompts],
        "began": round(began, 3),
        "learning": learning,
        "shaken": shaking,
        "designs": designs,
        "passes": passes,
        "events": [{"at": e.at, "kind": e.kind, "shape": str(e.shape), "detail": e.detail} for e in events()],
        "counts": asdict(modes.counts()),
        "status": None if (found := learner.current()) is None else asdict(found.status()),
        "rows": len(TABLE.rows()),
        "evictions": TABLE.evictions,
        "saved_s": sum(row.saved_seconds for row in TABLE.rows()),
        "generic_times": _generic_times(),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "device_mb": _device_mb(task.device),
    }


def _turns(task: Task) -> Iterator[int]:
    """The passes, each when it is asked for."""
    for n in range(task.passes):
        if task.asked:
            print(READY, flush=True)
            sys.stdin.readline()
        yield n


def _generic_times() -> list[float]:
    """How many times as long as the special kernel of a slot the generic one takes, of those that have one."""
    rows = [r for r in TABLE.rows() if r.generic_seconds is not None and r.seconds]
    return [round((r.generic_seconds or 0.0) / (r.seconds or 1.0), 3) for r in rows]


def _device_mb(device: str) -> float:
    """Megabytes in use on the GPU, by whomever."""
    if device == "cpu":
        return 0.0
    from tilewright.runtime.cuda import driver

    with driver.inside(0):
        free, total = driver.checked(driver.driver().cuMemGetInfo(), "asking for free memory")
    return float(total - free) / 2**20


def _learned(server: Server, task: Task) -> list[dict[str, Any]]:
    """Serve on and on until the time to learn is over; the learner is stopped then."""
    trigger = Trigger(count=None, payback=1.0, cost=task.cost)
    budget = Budget(trials=task.trials, share=1.0, job_seconds=task.search_seconds)
    at_work, until, found = learner.start(trigger=trigger, budget=budget), time.monotonic() + task.limit, []
    while time.monotonic() < until:
        found.append(swept(server))
    at_work.stop()
    return found


if __name__ == "__main__":
    print(json.dumps(serve(Task(**json.loads(sys.argv[1])))))
