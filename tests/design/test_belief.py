"""Beliefs of designs that were not tried: how wrong the model was nearby, in steps that noise does not move."""

from landscapes import SILU

from tilewright.design.belief import Belief
from tilewright.design.default import default_design
from tilewright.design.mutations import steps
from tilewright.design.trial import Outcome, Trial

DEFAULT = default_design(SILU.kernel, SILU.facts)
DESIGNS = [DEFAULT, *(d for _, d in steps(SILU.kernel, DEFAULT, SILU.facts))][:12]


def learned(factors, step):
    """What is believed after trials that took so many times what the model said of them: 1 second each."""
    belief = Belief(step)
    belief.learn(Trial(d, 1.0, Outcome("ok", f)) for d, f in zip(DESIGNS, factors, strict=False))
    return belief


def test_a_model_that_is_wrong_nearby_is_corrected():
    belief = learned([1.0] * 6 + [4.0], 0.0)
    wrong, right = belief.corrected(DESIGNS[6], 1.0), belief.corrected(DESIGNS[1], 1.0)
    assert 1.0 < right < wrong < 4.0


def test_steps_are_moved_neither_by_noise_nor_by_a_model_that_errs_alike_on_all():
    """A host that is slower by any factor, and trials that are off by 3%, rank what was not tried the same."""
    ranks = set()
    for slower in (0.9, 1.0, 1.16, 1.3, 2.0):
        for odd in (1.0, 1.03, 0.97):
            belief = learned([slower * (odd if n % 2 else 1.0) for n in range(6)], 0.3)
            told = [belief.corrected(d, 1.0 + 0.01 * n) for n, d in enumerate(DESIGNS)]
            ranks.add(tuple(sorted(range(len(told)), key=told.__getitem__)))
    assert ranks == {tuple(range(len(DESIGNS)))}


def test_a_step_is_taken_where_the_model_errs_by_a_factor():
    belief = learned([1.0] * 7 + [6.0], 0.3)
    assert belief.corrected(DESIGNS[7], 1.0) >= 1.3 * belief.corrected(DESIGNS[0], 1.0)


def test_without_trials_the_models_word_stands():
    assert Belief(0.3).corrected(DEFAULT, 2.5) == 2.5
