"""What a search knows once designs are compiled: predictions made anew, and kernels that are not worth a run."""

import pytest
from landscapes import Landscape, Noisy

from tilewright.design.cost.usage import Usage
from tilewright.design.default import default_design
from tilewright.design.informed import HOPELESS
from tilewright.design.search import search
from tilewright.design.trial import Budget

SCAPE = Landscape.of("silu", 11, "f32")
LEAN, GREEDY = Usage(256, 64), Usage(256, 255, spills=400)


class Compiling(Noisy):
    """Kernels of some designs spill; which were run is kept."""

    def __init__(self, seconds, spills):
        super().__init__(seconds)
        self.spills, self.ran = spills, []

    def usages(self, designs):
        return {d: GREEDY if self.spills(d) else LEAN for d in designs}

    def evaluate(self, designs):
        self.ran += designs
        return super().evaluate(designs)


def explored(evaluator, factor):
    return search(
        SCAPE.kernel, SCAPE.facts, evaluator, model=SCAPE.model, budget=Budget(trials=24),
        word=lambda design, usage: SCAPE.model(design) * (factor if usage.spills else 1.0),
    )  # fmt: skip


def by_hash(design):
    """Of a third of all designs, the default one not among them."""
    return int(design.hash[:2], 16) % 3 == 0 and design != default_design(SCAPE.kernel, SCAPE.facts)


def test_a_kernel_that_spills_beyond_hope_is_not_run_and_says_why():
    evaluator = Compiling(SCAPE.seconds, by_hash)
    result = explored(evaluator, 1000.0)
    spilling = [t for t in result.trials[1:] if by_hash(t.design)]
    assert spilling and all(t.outcome.status == "illegal" for t in spilling)
    assert "255 registers" in spilling[0].outcome.reason and "400 bytes" in spilling[0].outcome.reason
    assert not {t.design for t in spilling} & set(evaluator.ran)
    assert all(t.outcome.status == "ok" for t in result.trials if t not in spilling)


def test_predictions_are_those_of_the_compiled_kernel():
    factor = 1.1  # slower, and worth a run
    result = explored(Compiling(SCAPE.seconds, by_hash), factor)
    for trial in result.trials:
        expected = SCAPE.model(trial.design) * (factor if by_hash(trial.design) else 1.0)
        assert trial.outcome.status == "ok" and trial.predicted == pytest.approx(expected)


def test_the_first_design_is_run_whatever_it_takes():
    evaluator = Compiling(SCAPE.seconds, lambda design: True)
    result = explored(evaluator, 1000.0)
    assert result.trials[0].outcome.status == "ok"
    assert HOPELESS > 1


def test_an_evaluator_that_cannot_compile_is_asked_as_before():
    result = explored(Noisy(SCAPE.seconds), 1000.0)
    plain = search(SCAPE.kernel, SCAPE.facts, Noisy(SCAPE.seconds), model=SCAPE.model, budget=Budget(trials=24))
    assert [t.design for t in result.trials] == [t.design for t in plain.trials]
