"""What a search knows once designs are compiled: the model's word with what the assembler says of their kernels.

A kernel that spills, or of which fewer fit on an SM than its tiles suggest, is slower than the model could know. Its
prediction is made anew before it is run; one that has become hopeless is not run at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from tilewright.design.cost.usage import Usage
from tilewright.design.design import Design
from tilewright.design.strategies import Candidate
from tilewright.design.trial import Outcome, Trial

Informed = Callable[[Design, Usage], float]
"""Seconds of a design by the model, with what its kernel takes."""

HOPELESS = 2.0
"""How many times as long as the best so far a kernel has to take, by the model, not to be run."""
_WORSE = 1.2  # and by how much its use of the machine must have added to that: else the model just errs


@runtime_checkable
class Compiler(Protocol):
    """An evaluator that can say what kernels take before it runs them."""

    def usages(self, designs: Sequence[Design]) -> Mapping[Design, Usage]:
        """Compile the designs; what each takes, of those that could be compiled."""
        ...


def informed(
    candidates: Sequence[Candidate], usages: Mapping[Design, Usage], word: Informed, best: Trial | None
) -> tuple[list[Candidate], dict[Design, Outcome]]:
    """The candidates with new predictions; and the outcomes of those that are not worth a run, beside `best`."""
    found, outcomes = [], {}
    for c in candidates:
        usage = usages.get(c.design)
        now = c if usage is None else replace(c, predicted=word(c.design, usage))
        found.append(now)
        if usage is not None and best is not None and now.predicted > max(_WORSE * c.predicted, _hopeless(best)):
            outcomes[c.design] = Outcome("illegal", reason=_why(usage, now.predicted, best))
    return found, outcomes


def _hopeless(best: Trial) -> float:
    """Seconds from which on a design is not run: by what was measured and by what the model says of the best."""
    return HOPELESS * max(best.outcome.seconds or 0.0, best.predicted)


def _why(usage: Usage, seconds: float, best: Trial) -> str:
    taken = f"a thread takes {usage.registers} registers and moves {usage.spills} bytes to and from local memory"
    return (
        f"not run: {taken}, by which the model gives it {seconds * 1e6:.3g} us, and the best so far takes "
        f"{(best.outcome.seconds or 0.0) * 1e6:.3g}; take smaller tiles, or more warps"
    )


__all__ = ["HOPELESS", "Compiler", "Informed", "informed"]
