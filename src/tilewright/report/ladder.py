"""The ladder: from the naive kernel to the best, one mutation a step, each rung compiled, verified and measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tilewright.design.cost.term import Estimate, Term
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.trial import Evaluator, Outcome
from tilewright.language import ir
from tilewright.report.path import find_path, naive_design
from tilewright.report.words import change_words

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
    """The ladder from `start` (the naive design) to `winner`: a way by the estimates, then measured rung by rung."""
    known: dict[Design, Estimate] = {}

    def estimated(design: Design) -> Estimate:
        if design not in known:
            known[design] = estimate(design)
        return known[design]

    steps = find_path(kernel, facts, start or naive_design(kernel), winner, lambda d: estimated(d).seconds)
    outcomes = evaluator.evaluate([s.design for s in steps])
    rungs = []
    for before, step, outcome in zip([None, *steps], steps, outcomes, strict=False):
        said = estimated(step.design)
        why = "" if before is None else reason(estimated(before.design), said)
        name = "the naive kernel" if before is None else change_words(step.changes)
        terms = tuple((t.name, t.value, t.unit) for t in said.terms)
        rungs.append(Rung(step.design, name, step.predicted, outcome, said.bound, why, terms))
    return tuple(rungs)


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
