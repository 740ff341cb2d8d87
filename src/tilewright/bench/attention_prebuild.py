"""The kernels of `tilewright bench attention`, compiled ahead by all cores (`python -m`).

They go to the cache on disk, where a bench of the same cases and trials finds them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace

from tilewright.bench.attention import candidates
from tilewright.bench.attention_cases import AttentionCase, attention_cases
from tilewright.bench.attention_problem import AttentionProblem
from tilewright.bench.gpu_case import facts_of
from tilewright.build.cuda_kernel import build_many
from tilewright.build.kernel_cache import Request
from tilewright.design.default import default_design
from tilewright.errors import TilewrightError
from tilewright.runtime.cuda.dispatch import machine, requested


def requests(most: int) -> Iterator[Request]:
    """What each case asks for: its default design and `most` of those that are worth a trial."""
    seen: dict[AttentionCase, AttentionProblem] = {}
    for case in attention_cases():
        # Layouts and fixed sizes are those of a small batch of short sequences; designs are those of the case.
        small = replace(case, batch=1, length=128, queries=min(case.queries, 128), lengths=case.lengths and (128,))
        setup = seen.setdefault(small, AttentionProblem(small, 0))
        problem = replace(setup.problem(), sizes=case.sizes)
        facts = facts_of(problem, machine(0))
        for design in dict.fromkeys([default_design(problem.program.kernel, facts), *candidates(problem, facts, most)]):
            yield requested(problem.program, problem.layouts, problem.sizes, machine(0), design, problem.fixed)


def main(most: int) -> int:
    """Compile all; how many could not be compiled."""
    wanted = list(dict.fromkeys(requests(most)))
    errors = [b for b in build_many(wanted, machine(0), os.cpu_count() or 1) if isinstance(b, TilewrightError)]
    print(f"{len(wanted) - len(errors)} of {len(wanted)} kernels compiled")
    for error in errors:
        print(error)
    return len(errors)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))

__all__ = ["main", "requests"]
