"""A served trace while the run time learns: generic only, learning, and frozen afterwards, each in fresh processes.

Those that are compared run at once and serve a pass over the trace each in turns.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tilewright.bench.checkpoint import Shape, write_checkpoint
from tilewright.bench.result import Result, rounded
from tilewright.bench.serve_process import Process, in_turns, process, told
from tilewright.observe.served import REQUESTS
from tilewright.runtime.measure import Ratio, paired_ratio

FAMILY = "serve_learn"


@dataclass(frozen=True)
class Setting:
    """Where a trace is served, through which model, for how many seconds it learns, and in how many `passes` after.

    The first pass over the trace meets each length for the first time, and records how it goes through the model. A
    search has `trials`, and is begun where it pays back `cost` seconds: few, as minutes of a trace stand for hours.
    Where a process in which nobody learns gets other kernels (`classes`: one for each class of lengths), it is served
    by those too.
    """

    device: str
    name: str
    shape: Shape
    learn_seconds: float
    pinned_seconds: float
    trials: int
    cost: float
    passes: int = 2
    pinned_requests: int = 300
    shake_seconds: float = 15.0
    classes: bool = False


CPU = Setting(
    "cpu", "2,000 requests, a model of 2 layers of 256, bf16",
    Shape(hidden=256, layers=2, heads=4, kv_heads=2, head_dim=64, intermediate=768, vocabulary=2048, context=4096),
    learn_seconds=170.0, pinned_seconds=12.0, trials=16, cost=0.25, passes=3, shake_seconds=8.0,
)  # fmt: skip
GPU = Setting(
    "cuda", "2,000 requests, 4 layers of Llama 3.2 1B's, bf16", Shape(layers=4, vocabulary=32768, context=4096),
    learn_seconds=75.0, pinned_seconds=4.0, trials=6, cost=0.02, passes=4, shake_seconds=8.0,
    classes=True,
)  # fmt: skip
SETTINGS = {s.device: s for s in (CPU, GPU)}


def learn_results(setting: Setting, quick: bool) -> Iterator[Result]:
    """One result. Requests are served by one thread, so that the background process has a core of its own."""
    requests, limit = (setting.pinned_requests, setting.pinned_seconds) if quick else (REQUESTS, setting.learn_seconds)
    with tempfile.TemporaryDirectory(prefix="tilewright-bench-") as name:
        place = Path(name)
        (place / "model").mkdir()
        write_checkpoint(place / "model", setting.shape)
        side = partial(_side, place, setting.device)
        cold = side("free", "generic", requests)
        learning = side("free", "learn", requests, limit=limit, trials=setting.trials, cost=setting.cost)
        (generic, frozen, *classes), written = _restarted(place, setting, requests)
        pinned = _pinned(side, setting)
    values = {**_speed(generic, frozen), **_calm(generic, learning), **_counts(cold, learning, frozen)}
    values |= {"frozen_writes": written, **pinned, **(_beside(classes[0], frozen) if classes else {})}
    raw = {"cold": cold, "learning": learning, "frozen": [frozen], "generic": [generic], "classes": classes}
    yield Result(FAMILY, setting.name, 1, rounded(values), raw)


def _restarted(place: Path, setting: Setting, requests: int) -> tuple[list[dict[str, Any]], int]:
    """Generic, frozen and, where they are asked for, class kernels in new processes, a pass over the trace in turns.

    And how many files were written, changed or removed since the frozen one began from what was learned. The generic
    one serves from a copy of that folder: unlike a frozen process it notes when a kernel was last of use.
    """
    shutil.copytree(place / "free", place / "beside")
    task = _task(place, setting.device, requests, passes=setting.passes, asked=True)
    with ExitStack() as running:

        def started(mode: str, folder: str = "free") -> Process:
            made = running.enter_context(process(place / folder, mode, "free", task))
            made.line()
            return made

        generic, classes = started("generic", "beside"), [started("learn", "classes")] if setting.classes else []
        before = _files(place / "free")
        found = in_turns([generic, started("frozen"), *classes], setting.passes)
    return found, len(before ^ _files(place / "free"))


def _pinned(side: Callable[..., dict[str, Any]], setting: Setting) -> dict[str, float]:
    """Under pinned numerics a hash of all logits before, while and after kernels were swapped: how many there are.

    Swapped by a learner, and then on purpose, to designs of any speed that pinned numerics allow.
    """
    task: dict[str, Any] = {"requests": setting.pinned_requests}
    learn = {"limit": setting.pinned_seconds, "trials": setting.trials, "cost": setting.cost / 10}
    before, while_, after = (
        side("pinned", "generic", **task),
        side("pinned", "learn", **task, **learn, shake=setting.shake_seconds),
        side("pinned", "frozen", **task),
    )
    kinds = ("learning", "shaken", "passes")
    hashes = {p["hash"] for one in (before, while_, after) for kind in kinds for p in one[kind]}
    swaps = _swaps(while_) + sum(e["kind"] == "shake" for e in while_["events"])
    return {"pinned_hashes": len(hashes), "pinned_swaps": swaps, "pinned_designs": while_["designs"]}


def _side(
    place: Path, device: str, numerics: str, mode: str, requests: int, **options: Any
) -> dict[str, Any]:  # fmt: skip
    """What one process found that served to its end, by what `numerics` has in its folder."""
    with process(place / numerics, mode, numerics, _task(place, device, requests, **options)) as alone:
        return told(alone.line())


def _task(place: Path, device: str, requests: int, **options: Any) -> dict[str, Any]:
    return {"folder": str(place / "model"), "requests": requests, "passes": 1, "device": device, **options}


def _files(folder: Path) -> set[tuple[str, int, int]]:
    """What lies in a cache folder: names, sizes and times of writing."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in files}


def _microseconds(side: dict[str, Any]) -> list[int]:
    """Of each request, the least of the passes: what it takes when nothing disturbs it."""
    return [min(us) for us in zip(*(p["us"] for p in side["passes"]), strict=True)]


def _speed(generic: dict[str, Any], frozen: dict[str, Any]) -> dict[str, float]:
    """Learned kernels beside generic ones at their best, and in the first pass after the start of both."""
    tokens, ratio = sum(generic["tokens"]), _ratio(_microseconds(generic), _microseconds(frozen))
    first = [side["passes"][0]["us"] for side in (generic, frozen)]
    return {
        "us": sum(_microseconds(frozen)) / tokens,
        "peer_us": sum(_microseconds(generic)) / tokens,
        "ratio": ratio.median,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "first_us": sum(first[1]) / tokens,
        "first_peer_us": sum(first[0]) / tokens,
        "first_ratio": _ratio(*first).median,
    }


def _beside(classes: dict[str, Any], frozen: dict[str, Any]) -> dict[str, float]:
    """What a process takes that has a kernel for each class of lengths, and how many times as fast learned ones are."""
    ratio = _ratio(_microseconds(classes), _microseconds(frozen))
    return {
        "classes_us": sum(_microseconds(classes)) / sum(classes["tokens"]),
        "classes_compiles": classes["counts"]["compiles"],
        "of_classes": ratio.median,
        "of_classes_low": ratio.low,
        "of_classes_high": ratio.high,
    }


def _ratio(before: list[int], after: list[int]) -> Ratio:
    """How many times as fast as before requests are: of blocks of them, as single ones are short."""
    step = max(len(before) // 40, 1)
    blocks = range(0, len(before), step)
    return paired_ratio([sum(before[i : i + step]) for i in blocks], [sum(after[i : i + step]) for i in blocks])


def _calm(generic: dict[str, Any], learning: dict[str, Any]) -> dict[str, float]:
    """Latencies while learning beside generic ones; a stall is what a request took beyond its least generic time."""
    least, passes = _microseconds(generic), learning["learning"]
    waits, calm = (
        [us - low for p in one for us, low in zip(p["us"], least, strict=True)] for one in (passes, generic["passes"])
    )
    p99 = statistics.median(_p99(p["us"]) for p in generic["passes"])
    return {
        "generic_p99_ms": p99 / 1e3,
        "learning_p99_ms": _p99([us for p in passes for us in p["us"]]) / 1e3,
        "stall_ms": max(waits) / 1e3,
        "generic_stall_ms": max(calm) / 1e3,
        "stalled": sum(wait > _LONG * p99 for wait in waits),
        "learning_requests": len(waits),
        "slowest_ms": max(us for p in passes for us in p["us"]) / 1e3,
    }


_LONG = 1.05
"""Times the 99th percentile of generic requests: who waits longer than that has waited for what is learned."""


def _p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


def _counts(cold: dict[str, Any], learning: dict[str, Any], frozen: dict[str, Any]) -> dict[str, float]:
    status = learning["status"] or {}
    return {
        "compiles": cold["counts"]["compiles"],
        "searches": status.get("searches", 0),
        "swaps": _swaps(learning),
        "learn_s": status.get("seconds", 0.0),
        "peak_mb": learning["peak_mb"],
        "generic_mb": cold["peak_mb"],
        "device_mb": learning["device_mb"],
        "rows": learning["rows"],
        "generic_times": max(learning["generic_times"], default=1.0),
        "frozen_compiles": frozen["counts"]["compiles"],
        "frozen_searches": (frozen["status"] or {}).get("searches", 0),
    }


def _swaps(side: dict[str, Any]) -> int:
    return sum(e["kind"] == "promote" for e in side["events"])


__all__ = ["CPU", "FAMILY", "GPU", "SETTINGS", "Setting", "learn_results"]
