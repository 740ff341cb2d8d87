"""The ladder: from the naive kernel to the best, one mutation a step, each rung compiled, verified and measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.design.cost.term import Estimate, Term
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.trial import Evaluator, Outcome
from tilewright.language import ir
from tilewright.report.path import Step, find_path, naive_design, way_cost
from tilewright.report.words import change_words

ROUNDS = 3
"""Ways that are measured."""

NEAR = 5.0
"""Rungs that take so many times as long as the fastest are timed again, side by side."""

BYTES = ("byte", "bytes", "B")


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: the design, the mutation that led to it, what was measured, and why it should pay.

    `terms` are the estimate's, as (name, value, unit).
    """

    design: Design
    mutation: str
    predicted: float
    outcome: Outcome
    bound: str
    reason: str
    terms: tuple[tuple[str, float, str], ...] = ()

    @property
    def seconds(self) -> float | None:
        """Measured seconds of a call; None where the rung failed."""
        return self.outcome.seconds

    def traffic(self, level: str) -> tuple[float, float] | None:
        """(bytes into a level of memory, bytes/s that the model grants it), over all threads; None without terms.

        A level is known by two terms: NAME in seconds and NAME bytes, those of the busiest thread.
        """
        said = {name: value for name, value, _ in self.terms}
        moved, seconds = said.get(f"{level} bytes", 0.0), said.get(level, 0.0)
        threads = said.get("threads", 1.0)
        return (moved * threads, moved * threads / seconds) if moved and seconds else None


def slowest_level(rungs: Iterable[Rung]) -> str | None:
    """The level of memory that takes most time on any rung, by the model; None where terms name none."""
    seconds: dict[str, float] = {}
    for rung in rungs:
        for name, value, unit in rung.terms:
            if unit == "s" and rung.traffic(name) is not None:
                seconds[name] = max(seconds.get(name, 0.0), value)
    return max(seconds, key=lambda name: seconds[name], default=None)


def climb(
    kernel: ir.Kernel,
    facts: Facts,
    winner: Design,
    evaluator: Evaluator,
    estimate: Callable[[Design], Estimate],
    start: Design | None = None,
) -> tuple[Rung, ...]:
    """The ladder from `start` (the naive design) to `winner`, measured rung by rung.

    The first way is found by the estimates; then others, by what was measured where it was: a step that did not pay
    where it stood may do so elsewhere. The way whose measured steps pay best is the ladder.
    """
    said: dict[Design, Estimate] = {}
    outcomes: dict[Design, Outcome] = {}

    def estimated(design: Design) -> Estimate:
        if design not in said:
            said[design] = estimate(design)
        return said[design]

    def model(design: Design) -> float:
        measured = outcomes[design].seconds if design in outcomes else None
        return estimated(design).seconds * _bias(said, outcomes) if measured is None else measured

    ways: list[list[Step]] = []
    for _ in range(ROUNDS):
        steps = find_path(kernel, facts, start or naive_design(kernel), winner, model)
        new = [s.design for s in steps if s.design not in outcomes]
        outcomes |= zip(new, evaluator.evaluate(new) if new else [], strict=True)
        ways.append([Step(s.design, s.changes, model(s.design)) for s in steps])
        if not new:
            break
    best = min(ways, key=way_cost)
    outcomes |= _side_by_side([s.design for s in best], outcomes, evaluator)
    return tuple(_rung(b, s, estimated, outcomes[s.design]) for b, s in zip([None, *best], best, strict=False))


def _side_by_side(
    designs: Sequence[Design], outcomes: Mapping[Design, Outcome], evaluator: Evaluator
) -> dict[Design, Outcome]:
    """The rungs near the top in paired rounds: trials of different batches differ by what the machine did meanwhile."""
    times = {d: outcomes[d].seconds or math.inf for d in designs}
    near = [d for d in designs if times[d] <= NEAR * min(times.values()) and math.isfinite(times[d])]
    standings = evaluator.compare(near) if len(near) > 1 else []
    return {
        s.design: replace(outcomes[s.design], seconds=s.seconds, noise=s.noise)
        for s in standings
        if math.isfinite(s.seconds)
    }


def _bias(said: Mapping[Design, Estimate], outcomes: Mapping[Design, Outcome]) -> float:
    """How many times slower than estimated the measured designs are, in the middle."""
    ratios = [o.seconds / said[d].seconds for d, o in outcomes.items() if o.seconds and d in said]
    return statistics.median(ratios) if ratios else 1.0


def _rung(before: Step | None, step: Step, estimated: Callable[[Design], Estimate], outcome: Outcome) -> Rung:
    said = estimated(step.design)
    name = "the naive kernel" if before is None else change_words(step.changes)
    why = "" if before is None else reason(estimated(before.design), said)
    terms = tuple((t.name, t.value, t.unit) for t in said.terms)
    return Rung(step.design, name, said.seconds, outcome, said.bound, why, terms)


def reason(before: Estimate, after: Estimate) -> str:
    """Which term of the cost model a step lowers most, and what bounds the kernel after it.

    Terms in seconds are compared by what they save, others (bytes, instructions, transactions) by their ratio.
    """
    old, new = _values(before.terms), _values(after.terms)
    lower = {n: (old[n][0], new.get(n, (0.0, ""))[0], old[n][1]) for n in old if new.get(n, (0.0, ""))[0] < old[n][0]}
    times = {n: v for n, v in lower.items() if v[2] == "s"}
    bound = f"; then {after.bound} bounds" if after.bound else ""
    if times:
        name = max(times, key=lambda n: times[n][0] - times[n][1])
    elif lower:
        name = max(lower, key=lambda n: lower[n][0] / max(lower[n][1], 1e-30))
    else:
        return f"no term is lower{bound}"
    a, b, unit = lower[name]
    return f"{name} {quantity(a, unit)} -> {quantity(b, unit)}{bound}"


def _values(terms: Iterable[Term]) -> dict[str, tuple[float, str]]:
    return {t.name: (t.value, t.unit) for t in terms}


def quantity(value: float, unit: str) -> str:
    """A number with its unit as people read it: `1.25 ms`, `3.2 MB`, `1.3e+06 line`."""
    if unit == "s":
        scale, word = next(((f, w) for f, w in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")) if value >= f), (1e-9, "ns"))
        return f"{value / scale:.3g} {word}"
    if unit in BYTES:
        scale, word = next(((f, w) for f, w in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if value >= f), (1.0, "B"))
        return f"{value / scale:.3g} {word}"
    return f"{value:.3g} {unit}".strip()
