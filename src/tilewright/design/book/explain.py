"""Why the book holds what it holds: the candidates of a key, how they were measured, and how sure that is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tilewright.design.book.key import Key
from tilewright.design.book.record import Measurement, Record
from tilewright.design.design import Choice, Design
from tilewright.design.view import shown

if TYPE_CHECKING:
    from tilewright.design.book.store import Book

_SHOWN = 12
"""Candidates that are listed, the fastest first."""


def explanation(book: Book, key: Key) -> dict[str, Any]:
    """What is known of a key, as plain data for JSON; times in seconds."""
    record, near = book.get(key), book.nearest(key)
    measured = book.measurements(key)
    return {
        "key": key.to_dict(),
        "hash": key.hash,
        "hit": record is not None,
        "record": None if record is None else record.to_dict(),
        "hints": [r.to_dict() for r in book.untrusted(key)],
        "candidates": [_candidate(m) for m in _best_of_each(measured)],
        "evidence": _evidence(measured),
        "quarantine": {h: q.to_dict() for h, q in book.quarantine_of(key).items()},
        "nearest": None if near is None else {"record": near[0].to_dict(), "differs": list(near[1])},
    }


def explain(book: Book, key: Key) -> str:
    """What is known of a key, as text."""
    record, measured = book.get(key), book.measurements(key)
    lines = [f"{key.label} on {key.machine}, {key.threads} thread(s), {key.objective}, {key.numerics} numerics",
             f"key {key.hash}, program {key.semantics}"]  # fmt: skip
    machine = book.subjects.machine(key.machine)
    if machine is not None and machine.simulated:
        lines.append(f"times are by a model of {machine.name}; nothing was measured")
    lines += _hit(record) if record is not None else _miss(book, key)
    lines += _candidates(measured, record)
    lines += _runs(measured)
    lines += [f"in quarantine: {h} {why}" for h, why in book.quarantined(key).items()]
    return "\n".join(lines)


def _hit(record: Record) -> Iterator[str]:
    yield ""
    yield f"design {record.design.hash}, verified here, found by {record.origin} (seed {record.seed})"
    yield f"  on {record.created} by tilewright {record.version}"
    yield f"  {span(record.seconds)}, {record.speedup:.2f}x the default design ({span(record.default_seconds)})"
    yield f"  noise of its measurement: {record.noise:.1%}"
    yield from (f"  {name} = {value}" for name, value in shown_decisions(record.design))
    other = record.runner_up
    if other is None:
        yield "no runner-up: nothing else was measured beside it"
        return
    if not math.isfinite(other.ratio):
        yield f"runner-up {other.design.hash}: it failed in the last rounds"
        return
    interval = f"interval {other.low:.3f} to {other.high:.3f}"
    yield f"runner-up {other.design.hash}: {other.ratio:.3f} times as long ({interval}; {span(other.seconds)})"
    beyond = other.low > 1 + other.noise
    yield f"  {'slower beyond noise' if beyond else 'a tie within noise: the smaller design was taken'}"
    yield from (f"  {change}" for change in changes(record.design, other.design))


def _miss(book: Book, key: Key) -> Iterator[str]:
    yield ""
    yield "no design for this key: the default one is used until `tilewright design` finds a better one"
    hints = book.untrusted(key)
    if hints:
        names = ", ".join(f"{r.design.hash} ({r.origin})" for r in hints)
        yield f"to be verified and measured here first: {names}"
    near = book.nearest(key)
    if near is None:
        yield f"nothing is known of {key.operator}"
        return
    record, differs = near
    yield f"nearest entry: {record.key.label}, key {record.key.hash[:12]}, design {record.design.hash}"
    yield from (f"  differs in {name}: {_field(key, name)} here, {_field(record.key, name)} there" for name in differs)


def _candidates(measured: list[Measurement] | Any, record: Record | None) -> Iterator[str]:
    best = _best_of_each(measured)
    if not best:
        yield "no candidate was measured"
        return
    yield ""
    yield f"{len(best)} candidates; predicted, measured (+- noise), measured/predicted, status"
    for m in best[:_SHOWN]:
        mark = "*" if record is not None and m.trial.design == record.design else " "
        yield f"{mark} {m.trial.design.hash} {_row(m)}"
    if len(best) > _SHOWN:
        yield f"  and {len(best) - _SHOWN} more"


def _row(m: Measurement) -> str:
    seconds, predicted = m.trial.outcome.seconds, m.trial.predicted
    if seconds is None:
        return f"{span(predicted):>10}  {m.trial.outcome.status}: {m.trial.outcome.reason}"
    ratio = f"{seconds / predicted:.2f}" if predicted > 0 else "-"
    step = f"  {m.trial.mutation}" if m.trial.mutation else ""
    return f"{span(predicted):>10} {span(seconds):>10} +-{m.trial.outcome.noise:.1%} {ratio:>6}  ok{step}"


def _runs(measured: Any) -> Iterator[str]:
    runs = _evidence(measured)
    if runs:
        yield ""
    for run in runs:
        versions = ", ".join(f"{name} {value}" for name, value in run["versions"].items())
        seeds, there = ", ".join(map(str, run["seeds"])), "" if run["origin"] == "here" else f" ({run['origin']})"
        yield f"run {run['run']}{there}: {run['trials']} trials, {run['samples']} samples, seed {seeds}"
        yield f"  {run['first']} to {run['last']}; {versions}"


def _best_of_each(measured: Any) -> list[Measurement]:
    """One measurement of each design, the fastest first, failures last."""
    best: dict[Design, Measurement] = {}
    for m in measured:
        held = best.get(m.trial.design)
        if held is None or _seconds(m) < _seconds(held):
            best[m.trial.design] = m
    return sorted(best.values(), key=lambda m: (_seconds(m), m.trial.design.hash))


def _seconds(m: Measurement) -> float:
    return float("inf") if m.trial.outcome.seconds is None else m.trial.outcome.seconds


def _candidate(m: Measurement) -> dict[str, Any]:
    samples = m.trial.outcome.samples
    spread = {"median": statistics.median(samples), "low": min(samples), "high": max(samples)} if samples else None
    return {**m.to_dict()["trial"], "hash": m.trial.design.hash, "spread": spread}


def _evidence(measured: Any) -> list[dict[str, Any]]:
    """A summary of each run and set of versions."""
    groups: dict[tuple[Any, ...], list[Measurement]] = {}
    for m in measured:
        groups.setdefault((m.run, m.origin, m.versions), []).append(m)
    return [
        {
            "run": run,
            "origin": origin,
            "versions": dict(versions),
            "seeds": sorted({m.seed for m in group}),
            "trials": len(group),
            "samples": sum(len(m.trial.outcome.samples) for m in group),
            "first": min(m.date for m in group),
            "last": max(m.date for m in group),
        }
        for (run, origin, versions), group in groups.items()
    ]


# ------------------------------------------------------------------------------------------------ words
def span(seconds: float) -> str:
    """Seconds as people read them: `12.3 us`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds / 1e-9:.4g} ns"


def shown_decisions(design: Design) -> list[tuple[str, str]]:
    """The decisions of a design as text."""
    return [(name, shown(value)) for name, value in design.decisions]


def changes(one: Design, other: Design) -> list[str]:
    """What another design decides otherwise: `tile.n = 64, not 32`."""
    mine, theirs = dict(one.decisions), dict(other.decisions)
    names = [n for n in sorted({*mine, *theirs}) if mine.get(n) != theirs.get(n)]
    return [f"{n} = {_choice(theirs.get(n))}, not {_choice(mine.get(n))}" for n in names]


def _choice(value: Choice | None) -> str:
    return "left out" if value is None else shown(value)


def _field(key: Key, name: str) -> str:
    field, _, part = name.partition(".")
    value = getattr(key, field)
    found = dict(value).get(part, "none") if part else value
    return (", ".join(map(str, found)) or "none") if isinstance(found, tuple) else str(found)
