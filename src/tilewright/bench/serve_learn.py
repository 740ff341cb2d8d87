"""A served trace while the run time learns: generic only, learning, and frozen afterwards, each in fresh processes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tilewright.bench.checkpoint import Shape, write_checkpoint
from tilewright.bench.result import Result, rounded
from tilewright.errors import TilewrightError
from tilewright.observe.served import REQUESTS
from tilewright.runtime.measure import Ratio, paired_ratio

FAMILY = "serve_learn"


@dataclass(frozen=True)
class Setting:
    """Where a trace is served, through which model, and for how many seconds it learns; `passes` in each of `turns`.

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
    turns: int = 2
    passes: int = 2
    pinned_requests: int = 300
    shake_seconds: float = 15.0
    classes: bool = False


CPU = Setting(
    "cpu", "2,000 requests, a model of 2 layers of 256, bf16",
    Shape(hidden=256, layers=2, heads=4, kv_heads=2, head_dim=64, intermediate=768, vocabulary=2048, context=4096),
    learn_seconds=75.0, pinned_seconds=12.0, trials=9, cost=0.25, turns=1, shake_seconds=8.0,
)  # fmt: skip
GPU = Setting(
    "cuda", "2,000 requests, 4 layers of Llama 3.2 1B's, bf16", Shape(layers=4, vocabulary=32768, context=4096),
    learn_seconds=75.0, pinned_seconds=4.0, trials=6, cost=0.02, turns=1, passes=3, shake_seconds=8.0,
    classes=True,
)  # fmt: skip
SETTINGS = {s.device: s for s in (CPU, GPU)}


def learn_results(setting: Setting, quick: bool) -> Iterator[Result]:
    """One result. Requests are served by one thread, so that the background process has a core of its own."""
    requests, limit, turns = setting.pinned_requests, setting.pinned_seconds, 1
    if not quick:
        requests, limit, turns = REQUESTS, setting.learn_seconds, setting.turns
    with tempfile.TemporaryDirectory(prefix="tilewright-bench-") as name:
        place = Path(name)
        (place / "model").mkdir()
        write_checkpoint(place / "model", setting.shape)
        side = partial(_side, place, setting.device)
        cold = side("free", "generic", requests)
        learning = side("free", "learn", requests, limit=limit, trials=setting.trials, cost=setting.cost)
        frozen, generic, classes, written = [], [], [], 0
        for _ in range(turns):  # in turns: the machine's mood meets all
            generic.append(side("free", "generic", requests, passes=setting.passes))
            before = _files(place / "free")
            frozen.append(side("free", "frozen", requests, passes=setting.passes))
            written += len(before ^ _files(place / "free"))
            if setting.classes:
                classes.append(side("free", "learn", requests, passes=setting.passes, folder="classes"))
        pinned = _pinned(side, setting)
    values = {**_speed(generic, frozen), **_calm(generic, learning), **_counts(cold, learning, frozen)}
    values |= {"frozen_writes": written, **pinned, **(_beside(classes, frozen) if classes else {})}
    raw = {"cold": cold, "learning": learning, "frozen": frozen, "generic": generic, "classes": classes}
    yield Result(FAMILY, setting.name, 1, rounded(values), raw)


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
    place: Path, device: str, numerics: str, mode: str, requests: int, folder: str | None = None, **options: Any
) -> dict[str, Any]:
    environment = {
        **os.environ, "TILEWRIGHT_CACHE_DIR": str(place / (folder or numerics)), "TILEWRIGHT_MODE": mode,
        "TILEWRIGHT_NUMERICS": numerics, "TILEWRIGHT_THREADS": "1",
    }  # fmt: skip
    task = {"folder": str(place / "model"), "requests": requests, "passes": 1, "device": device, **options}
    command = [sys.executable, "-m", "tilewright.bench.serve_side", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise TilewrightError(f"serving in mode {mode} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _files(folder: Path) -> set[tuple[str, int, int]]:
    """What lies in a cache folder: names, sizes and times of writing."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in files}


def _microseconds(sides: list[dict[str, Any]]) -> list[float]:
    """Of each request, the least of the passes: what it takes when nothing disturbs it."""
    return [min(us) for us in zip(*(p["us"] for side in sides for p in side["passes"]), strict=True)]


def _speed(generic: list[dict[str, Any]], frozen: list[dict[str, Any]]) -> dict[str, float]:
    tokens, ratio = sum(generic[0]["tokens"]), _ratio(generic, frozen)
    return {
        "us": sum(_microseconds(frozen)) / tokens,
        "peer_us": sum(_microseconds(generic)) / tokens,
        "ratio": ratio.median,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
    }


def _beside(classes: list[dict[str, Any]], frozen: list[dict[str, Any]]) -> dict[str, float]:
    """What a process takes that has a kernel for each class of lengths, and how many times as fast learned ones are."""
    ratio = _ratio(classes, frozen)
    return {
        "classes_us": sum(_microseconds(classes)) / sum(classes[0]["tokens"]),
        "classes_compiles": classes[0]["counts"]["compiles"],
        "of_classes": ratio.median,
        "of_classes_low": ratio.low,
        "of_classes_high": ratio.high,
    }


def _ratio(plain: list[dict[str, Any]], learned: list[dict[str, Any]]) -> Ratio:
    """How many times as fast as the plain ones the learned kernels are: of blocks, as single requests are short."""
    before, after = _microseconds(plain), _microseconds(learned)
    step = max(len(before) // 40, 1)
    blocks = range(0, len(before), step)
    return paired_ratio([sum(before[i : i + step]) for i in blocks], [sum(after[i : i + step]) for i in blocks])


def _calm(generic: list[dict[str, Any]], learning: dict[str, Any]) -> dict[str, float]:
    """Latencies while learning beside generic ones; a stall is what a request took beyond its least generic time."""
    least, passes = _microseconds(generic), learning["learning"]
    stalls = [max(us - low for us, low in zip(p["us"], least, strict=True)) for p in passes]
    calm = [max(us - low for us, low in zip(p["us"], least, strict=True)) for s in generic for p in s["passes"]]
    p99 = statistics.median(_p99(p["us"]) for s in generic for p in s["passes"])
    return {
        "generic_p99_ms": p99 / 1e3,
        "learning_p99_ms": _p99([us for p in passes for us in p["us"]]) / 1e3,
        "stall_ms": max(stalls) / 1e3,
        "generic_stall_ms": max(calm) / 1e3,
        "slowest_ms": max(us for p in passes for us in p["us"]) / 1e3,
    }


def _p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


def _counts(cold: dict[str, Any], learning: dict[str, Any], frozen: list[dict[str, Any]]) -> dict[str, float]:
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
        "frozen_compiles": max(s["counts"]["compiles"] for s in frozen),
        "frozen_searches": max((s["status"] or {}).get("searches", 0) for s in frozen),
    }


def _swaps(side: dict[str, Any]) -> int:
    return sum(e["kind"] == "promote" for e in side["events"])


__all__ = ["CPU", "FAMILY", "GPU", "SETTINGS", "Setting", "learn_results"]
