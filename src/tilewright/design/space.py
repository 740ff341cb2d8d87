"""The space of designs of one program: random members, grids of it, and a pool that is the same on every host.

All of it is derived from the structure of the program, so that a user's own kernel has a space for nothing.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import TypeVar

from tilewright.design.default import Facts, default_design
from tilewright.design.design import Choice, Design
from tilewright.design.draw import draw
from tilewright.design.legality import legal
from tilewright.design.mutation import Mutation
from tilewright.design.mutations import steps, suggested
from tilewright.design.pick import Pick
from tilewright.language import ir

T = TypeVar("T")

_ATTEMPTS = 50  # draws that may be illegal before a walk begins at the default
_LONGEST_WALK = 4


def random_design(kernel: ir.Kernel, facts: Facts, rng: random.Random) -> Design:
    """A random legal design: drawn as a whole, or the default, and then some random mutations on."""
    design = default_design(kernel, facts)
    if rng.random() < 0.8:
        design = _drawn(kernel, facts, rng) or design
    for _ in range(rng.randrange(_LONGEST_WALK)):
        if (step := random_step(kernel, design, facts, rng)) is not None:
            design = step[1]
    return design


def random_step(kernel: ir.Kernel, design: Design, facts: Facts, rng: random.Random) -> tuple[Mutation, Design] | None:
    """A random legal mutation and where it leads, each kind of mutation as likely; None where there is none."""
    kinds: dict[str, list[Mutation]] = {}
    for mutation in suggested(kernel, design, facts):
        kinds.setdefault(type(mutation).__name__, []).append(mutation)
    while kinds:
        kind = rng.choice(sorted(kinds))
        mutation = kinds[kind].pop(rng.randrange(len(kinds[kind])))
        if not kinds[kind]:
            del kinds[kind]
        result = mutation.apply(design)
        if isinstance(result, Design) and not legal(kernel, result, facts):
            return mutation, result
    return None


def _drawn(kernel: ir.Kernel, facts: Facts, rng: random.Random) -> Design | None:
    def pick(what: str, options: Sequence[T], /) -> T:
        return options[rng.randrange(len(options))]

    for _ in range(_ATTEMPTS):
        design = draw(kernel, facts, pick)
        if not legal(kernel, design, facts):
            return design
    return None


def enumerate_space(
    kernel: ir.Kernel, facts: Facts, choices: Mapping[str, Sequence[Choice | None]], base: Design | None = None
) -> list[Design]:
    """Every legal combination of `choices`, put over the decisions of `base` (none by default); None drops one.

    In the order of the product of the choices, each design once.
    """
    start: dict[str, Choice | None] = dict((base or Design()).decisions)
    found: dict[Design, None] = {}
    for values in product(*choices.values()):
        decisions = start | dict(zip(choices, values, strict=True))
        design = Design.of({name: value for name, value in decisions.items() if value is not None})
        if design not in found and not legal(kernel, design, facts):
            found[design] = None
    return list(found)


def drawn_grid(kernel: ir.Kernel, facts: Facts) -> Iterator[Design]:
    """Every legal design that `draw` describes, in a fixed order. It may be long."""
    seen = set()
    for design in _draws(lambda pick: draw(kernel, facts, pick)):
        if design not in seen and not legal(kernel, design, facts):
            seen.add(design)
            yield design


def _draws(describe: Callable[[Pick], Design]) -> Iterator[Design]:
    """What is described for every sequence of picks: an odometer whose last digit turns first."""
    digits: list[int] = []
    while True:
        counts: list[int] = []

        def pick(what: str, options: Sequence[T], /, counts: list[int] = counts) -> T:
            at = len(counts)
            counts.append(len(options))
            if at == len(digits):
                digits.append(0)
            return options[digits[at]]

        yield describe(pick)
        del digits[len(counts) :]
        while digits and digits[-1] + 1 == counts[len(digits) - 1]:
            digits.pop()
        if not digits:
            return
        digits[-1] += 1


def pool(
    kernel: ir.Kernel,
    facts: Facts,
    model: Callable[[Design], float],
    size: int,
    completed: Callable[[Design], Design] = lambda design: design,
) -> list[Design]:
    """About `size` designs that the model was asked about, best first by its word, ties by canonical order.

    The default, members of the drawn space, and then the neighbours of whatever is best so far, again and again. It
    depends on the program, the facts and the model alone: two searches begin with the same pool.
    """
    known: dict[Design, float] = {}
    ahead: list[tuple[float, tuple[int, str], Design]] = []  # not expanded yet, the best first

    def ask(design: Design) -> None:
        design = completed(design)
        if design not in known and len(known) < size:
            known[design] = model(design)
            heapq.heappush(ahead, (known[design], canonical(design), design))

    ask(default_design(kernel, facts))
    for design in islice(_drawn_for_ever(kernel, facts), 2 * size):
        if len(known) >= size // 2:
            break
        ask(design)
    while ahead and len(known) < size:
        for _, design in steps(kernel, heapq.heappop(ahead)[-1], facts):
            ask(design)
    return ranked(known)


def _drawn_for_ever(kernel: ir.Kernel, facts: Facts) -> Iterator[Design]:
    """The same draws every time; none where the program's draws are all illegal."""
    rng = random.Random(0)
    while (design := _drawn(kernel, facts, rng)) is not None:
        yield design


def ranked(seconds: Mapping[Design, float]) -> list[Design]:
    """Designs by their seconds, the canonically smaller first among equals."""
    return sorted(seconds, key=lambda d: (seconds[d], *canonical(d)))


def canonical(design: Design) -> tuple[int, str]:
    """The order in which ties are decided: fewest decisions first, then the smallest text."""
    return len(design.decisions), design.to_json()


__all__ = ["canonical", "drawn_grid", "enumerate_space", "pool", "random_design", "random_step", "ranked"]
