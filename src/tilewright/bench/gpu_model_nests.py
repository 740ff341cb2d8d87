"""How near the cost model comes to attention and row operators that the GPU benches measured: errors by family.

As `gpu_model`, which does the same for products: each different design of a case, its median seconds, the model's word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tilewright import operators
from tilewright.bench.attention_cases import AttentionCase, attention_cases
from tilewright.bench.decode_cases import HEADS, KEY_HEADS, DecodeCase, decode_cases
from tilewright.bench.gpu_model import Errors, design_of, designs_of
from tilewright.bench.rows_cases import RowCase, row_cases
from tilewright.design.cost import estimate, features
from tilewright.design.cost.accuracy import accuracy, cross_validated
from tilewright.design.cost.correction import Row
from tilewright.design.cost.gpu_rates import as_link
from tilewright.design.cost.program import program_of
from tilewright.design.cost.term import Estimate
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Choice, Design
from tilewright.design.gpu.rows import fixed_dims
from tilewright.language import ir
from tilewright.machines.machine import Machine


@dataclass(frozen=True)
class Case:
    """A program, its sizes, the operands whose rows lie beside multiples of 16 bytes, and what a ragged batch fills.

    `links`: timed as a link of a chain, which starts while the one before it ends. `swapped`: tensors whose last but
    one dimension has stride one. `defaults`: what is timed is the default design, so that a result whose default was
    another one is of kernels that are made no more.
    """

    kernel: ir.Kernel
    sizes: dict[str, int]
    beside: frozenset[str] = frozenset()
    filled: tuple[float, ...] = ()
    links: bool = False
    swapped: frozenset[str] = frozenset()
    defaults: bool = False


@dataclass(frozen=True)
class MeasuredNest:
    """One design of a case: its features, and seconds predicted and measured."""

    operator: str
    family: str
    name: str
    features: tuple[float, ...]
    predicted: float
    seconds: float

    @property
    def row(self) -> Row:
        """As the learned correction takes it."""
        return self.features, self.predicted, self.seconds


def measured_nests(results: Mapping[str, Any], machine: Machine) -> list[MeasuredNest]:
    """The rows of a results file that are no products, by the model of `machine`."""
    found = []
    for result in results["results"]:
        case = _cases().get((result["family"], result["name"]))
        if case is None or "design" not in result["raw"]:
            continue
        if not is_made(case, design_of(result["raw"].get("default", result["raw"]["design"])), machine):
            continue
        for design, seconds in designs_of(result["raw"]):
            found.append(measured_case(result["family"], result["name"], case, design, seconds, machine))
    return found


def is_made(case: Case, default: Design, machine: Machine) -> bool:
    """Whether the kernels of a result are still made: by today's default design, but for words to caches."""
    if not case.defaults:
        return True
    return _without_caches(default_design(case.kernel, facts_of(case, machine))) == _without_caches(default)


def _without_caches(design: Design) -> dict[str, Choice]:
    return {name: value for name, value in design.decisions if not name.startswith("cache.")}


def measured_case(
    family: str, name: str, case: Case, design: Design, seconds: float, machine: Machine
) -> MeasuredNest:  # fmt: skip
    """One design of a case that took `seconds`, beside what the model of `machine` says of it."""
    facts = facts_of(case, machine)
    said = estimate(case.kernel, design, facts)
    numbers = features(case.kernel, design, facts, said)
    return MeasuredNest(case.kernel.name, family, name, numbers, _seconds(case, said, machine), seconds)


def _seconds(case: Case, said: Estimate, machine: Machine) -> float:
    return as_link(said.seconds, machine) if case.links else said.seconds


@cache
def _cases() -> dict[tuple[str, str], Case]:
    """The case of every result, by family and name."""
    found = {(c.family, c.name): attention_case(c) for c in attention_cases()}
    found |= {(c.family, c.name): decode_case(c) for c in decode_cases()}
    return found | {(c.family, c.name): row_case(c) for c in row_cases()}


def attention_case(c: AttentionCase) -> Case:
    """A case of prompts."""
    types = {**dict.fromkeys("qkvo", c.dtype), **({"lengths": "i32"} if c.lengths else {})}
    kernel = operators.attention.kernel.trace(types, options={"causal": True} if c.causal else {})
    return Case(kernel, c.sizes, filled=tuple(n / c.length for n in c.lengths))


def row_case(c: RowCase) -> Case:
    """A case of rows."""
    swapped = frozenset({"x", "y"} if c.interleaved else ())
    return Case(c.traced(), dict(c.sizes), _unaligned(c), links=c.links, swapped=swapped, defaults=True)


def _unaligned(case: RowCase) -> frozenset[str]:
    """Tensors of which some row starts beside a multiple of 16 bytes."""
    bytes_of = {p.name: p.dtype.bytes for p in case.traced().params}
    rows = {name: shape[-1] * bytes_of[name] if len(shape) > 1 else 0 for name, shape in case.shapes().items()}
    return frozenset(name for name, row in rows.items() if case.offset or row % 16)


def decode_case(c: DecodeCase) -> Case:
    """A case of single queries, on rows or on pages."""
    sizes = {"B": c.batch, "H": KEY_HEADS, "G": HEADS // KEY_HEADS, "S": 1, "T": c.room, "D": c.width, "E": c.width}
    filled = tuple(n / c.room for n in c.lengths) if c.ragged else ()
    narrow = dict.fromkeys(("k_scale", "v_scale"), "f32") if c.dtype == "f8e4m3" else {}
    keys = {"k_pages": c.dtype, "v_pages": c.dtype} if c.page else {"k": c.dtype, "v": c.dtype}
    types = {"q": "bf16", "o": "bf16", **keys, **narrow}
    if not c.page:
        types |= {"lengths": "i32"} if c.ragged else {}
        return Case(operators.attention.kernel.trace(types, options={"causal": True}), sizes, filled=filled)
    types |= {"page_table": "i32", "lengths": "i32"}
    kernel: ir.Kernel = operators.paged_attention.kernel.trace(types, options={"causal": True})
    sizes |= {"N": c.batch * c.room // c.page, "P": c.page, "L": c.room // c.page}
    return Case(kernel, {d: sizes[d] for d in kernel.dims}, filled=filled)


def facts_of(case: Case, machine: Machine) -> Facts:
    """What the model may know of a case on a machine."""
    tensors = {p.name: len(p.dims) for p in case.kernel.params if p.dims}
    unit = {name: (rank - (2 if name in case.swapped else 1),) for name, rank in tensors.items()}
    fixed = frozenset({*fixed_dims(case.kernel), *program_of(case.kernel).whole})
    return Facts(case.sizes, unit, machine, frozenset(tensors) - case.beside, fixed, filled=case.filled)


def nest_errors(rows: Sequence[MeasuredNest], folds: int = 8) -> list[Errors]:
    """Errors by family and of all, the model alone and corrected by trees that were trained on other cases only.

    Rows and pages of one step of decoding take about as long as each other, and count as one case.
    """
    corrected = cross_validated([r.row for r in rows], [r.name.partition(" pages")[0] for r in rows], folds)
    return [*_by_family(rows, corrected)]


def _by_family(rows: Sequence[MeasuredNest], corrected: Sequence[float]) -> Iterator[Errors]:
    for family in (*dict.fromkeys(r.family for r in rows), "all"):
        those = [(r, c) for r, c in zip(rows, corrected, strict=True) if family in (r.family, "all")]
        seconds = [r.seconds for r, _ in those]
        yield Errors(
            family, accuracy([r.predicted for r, _ in those], seconds), accuracy([c for _, c in those], seconds)
        )


__all__ = [
    "Case", "MeasuredNest", "attention_case", "decode_case", "facts_of", "is_made", "measured_case", "measured_nests",
    "nest_errors", "row_case",
]  # fmt: skip
