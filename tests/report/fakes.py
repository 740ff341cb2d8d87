"""A machine without clocks: designs get their times from a formula, so that reports have something to show."""

from __future__ import annotations

import random
from collections.abc import Sequence

import tilewright as tw
from tilewright.design.cost.term import Estimate, Term
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.design.mutations import neighbours
from tilewright.design.trial import Outcome, Standing, Trial
from tilewright.report.evidence import Evidence
from tilewright.report.ladder import climb
from tilewright.report.topic import Topic

SIZES = {"M": 512, "N": 512, "K": 512}
MACHINE = tw.Machine.named("x86-avx512")
KERNEL = tw.operators.matmul.kernel.trace({"a": "f32", "b": "f32", "c": "f32"})
FACTS = Facts(SIZES, {"a": (1,), "b": (1,), "c": (1,)}, MACHINE)
TOPIC = Topic(
    "matmul", tuple(SIZES.items()), "f32", "a machine", 1, 2.0 * 512**3, 3 * 4 * 512**2, 2.6e11, 3e10, "torch", 1.4e-3
)


def estimate(design: Design) -> Estimate:
    """Vectors make arithmetic fast, tiles save loads, packing saves cache lines."""
    vector = 16 if design.number("tile.n") % 16 == 0 and "n" in design.names("lanes") else 1
    m, n = (design.number(f"tile.{a}", 1) for a in "mn")
    packs = sum(1 for _ in design.prefixed("pack"))
    arithmetic = 2.0 * 512**3 / (1.6e10 * vector) * (1.0 if design.get("unroll.k") else 1.2)
    loaded = 4.0 * 512**3 * (m + n) / (m * n)
    loads = loaded / (6e9 * vector) * (1.3 - 0.1 * packs)
    memory = 4.0 * 512**2 * (3 if design.get("block.m") else 40)
    terms = (
        Term("arithmetic", arithmetic, "s"), Term("loads", loads, "s"), Term("loads bytes", loaded, "byte"),
        Term("memory bytes", memory, "byte"),
        Term("memory", memory / 3e10, "s"),
    )  # fmt: skip
    times = {t.name: t.value for t in terms if t.unit == "s"}
    return Estimate(sum(times.values()), max(times, key=lambda name: times[name]), terms)


class FakeEvaluator:
    """Times by the formula and a little that only depends on the design; hashes that begin with `wrong` fail."""

    def __init__(self, wrong: str = "-") -> None:
        self.wrong = wrong
        self.seen: list[Design] = []

    def evaluate(self, designs: Sequence[Design]) -> list[Outcome]:
        self.seen += designs
        return [self._outcome(d) for d in designs]

    def _outcome(self, design: Design) -> Outcome:
        if design.hash.startswith(self.wrong):
            return Outcome("wrong", reason="c[0, 0] is off")
        seconds = estimate(design).seconds * (1 + 0.6 * random.Random(design.hash).random())
        return Outcome("ok", seconds, (seconds,) * 3, 0.01)

    def compare(self, designs: Sequence[Design]) -> list[Standing]:
        times = [self._outcome(d).seconds or 1.0 for d in designs]
        return [
            Standing(d, t, t / times[0], t / times[0], t / times[0], 0.01) for d, t in zip(designs, times, strict=True)
        ]


def walked(count: int, seed: int, greedy: bool) -> tuple[Trial, ...]:
    """Trials of a walk over the design graph: from the best so far, or from any."""
    rng, evaluator = random.Random(seed), FakeEvaluator("3")
    start = default_design(KERNEL, FACTS)
    trials = [Trial(start, estimate(start).seconds, evaluator.evaluate([start])[0])]
    while len(trials) < count:
        ok = sorted((t for t in trials if t.outcome.seconds), key=lambda t: t.outcome.seconds or 0)
        parent = rng.choice(ok[:4] if greedy else ok)
        mutation = rng.choice(list(neighbours(KERNEL, parent.design, FACTS)))
        design = mutation.apply(parent.design)
        assert isinstance(design, Design)
        if design not in {t.design for t in trials}:
            outcome = evaluator.evaluate([design])[0]
            trials.append(
                Trial(design, estimate(design).seconds, outcome, parent.design.hash, str(mutation), len(trials))
            )
    return tuple(trials)


def evidence(count: int = 60) -> Evidence:
    """A whole report's worth of evidence."""
    trials = walked(count, 0, True)
    best = min((t for t in trials if t.outcome.seconds), key=lambda t: t.outcome.seconds or 0)
    ladder = climb(KERNEL, FACTS, best.design, FakeEvaluator(), estimate)
    return Evidence(
        TOPIC, best.design, best.outcome.seconds or 0, trials[0].outcome.seconds or 0, 0.01, "budget", trials,
        walked(count, 1, False), ladder, command="tilewright design matmul M=512 N=512 K=512",
    )  # fmt: skip
