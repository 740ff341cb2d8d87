"""Operands packed before a product: `pack.TENSOR=row` copies it to rows that start where the copy engine can read.

before:  for ... { copy sa[m, k] <- a[m, k] @engine=plain }               rows of 1031 elements start anywhere
after:   a' = a, each row at a multiple of 128 bytes;  for ... { copy sa[m, k] <- a'[m, k] @engine=tma }

The copy is a program of its own, launched before the product; design rules and lowering see the packed operand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache

from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.design.gpu.product import Product
from tilewright.design.legality import Reason
from tilewright.language import ir
from tilewright.language.parser import parse

ALIGNED = 128
"""Bytes that rows of a packed operand start at multiples of."""

_WHY = "a packed operand is a copy that only this product reads"


def packed(design: Design) -> tuple[str, ...]:
    """The tensors that a design packs."""
    return tuple(tensor for tensor, _ in design.prefixed("pack"))


def without_packs(design: Design) -> Design:
    """The design of the product itself."""
    return Design(tuple((n, c) for n, c in design.decisions if not n.startswith("pack.")))


def with_packs(design: Design, tensors: tuple[str, ...]) -> Design:
    """The design with those operands packed."""
    return Design.of({**dict(design.decisions), **{f"pack.{t}": "row" for t in tensors}})


def as_packed(kernel: ir.Kernel, facts: Facts, tensors: tuple[str, ...]) -> Facts:
    """The facts as the product meets them: packed operands are aligned, and have a unit stride."""
    if not tensors:
        return facts
    unit: Mapping[str, tuple[int, ...]] = {**facts.unit, **{t: unit_of(kernel, facts, t) for t in tensors}}
    return replace(facts, unit=unit, aligned=facts.aligned | set(tensors))


def unit_of(kernel: ir.Kernel, facts: Facts, tensor: str) -> tuple[int, ...]:
    """The dimension that keeps its stride of one; the last where none has it."""
    dims = kernel.param(tensor).dims or ()
    return facts.unit.get(tensor, ())[-1:] or (len(dims) - 1,)


@cache
def copy_program(dims: int, dtype: str) -> ir.Kernel:
    """The program that packs a tensor x of two or three dimensions into y."""
    return parse(_COPIES[dims].replace("DTYPE", dtype))


def copy_design(program: ir.Kernel, facts: Facts) -> Design:
    """Its design: one serves all sizes, so that it is made for middling ones."""
    return default_design(program, replace(facts, sizes={"B": 8, "R": 4096, "C": 4096}))


_COPIES = {
    2: """kernel pack(x: DTYPE[R, C], y: DTYPE[R, C]) {
  for r in R, c in C parallel { v = load x[r, c] : DTYPE[r, c] store y[r, c] = v }
}""",
    3: """kernel pack(x: DTYPE[B, R, C], y: DTYPE[B, R, C]) {
  for each b in B, r in R, c in C parallel { v = load x[b, r, c] : DTYPE[r, c] store y[b, r, c] = v }
}""",
}


def worth_packing(product: Product, facts: Facts) -> tuple[str, ...]:
    """Operands of a product that the copy engine cannot read as they lie."""
    wanted = [o.tensor for o in product.operands if o.tensor not in facts.aligned or not facts.unit.get(o.tensor)]
    return tuple(dict.fromkeys(wanted))


def legal_packs(kernel: ir.Kernel, design: Design) -> list[Reason]:
    """Why operands may not be packed as the design says."""
    return [Reason("packs", message, _WHY) for message in _broken(kernel, design)]


def _broken(kernel: ir.Kernel, design: Design) -> Iterator[str]:
    tensors = {p.name: p for p in kernel.params if p.dims}
    stored = {s.ref.buffer for s in ir.walk(kernel.body) if isinstance(s, ir.Store)}
    for tensor, how in design.prefixed("pack"):
        if how != "row":
            yield f"pack.{tensor}={how}: rows are the only order a GPU packs; take row"
        if tensor not in tensors or tensor in stored:
            known = ", ".join(sorted(set(tensors) - stored))
            yield f"pack.{tensor}: {kernel.name} reads no such tensor; it has {known}"
        elif not 2 <= len(tensors[tensor].dims or ()) <= 3:
            yield f"pack.{tensor}: only tensors of two or three dimensions are packed; drop it"
    if packed(design) and not any(atom == "wgmma" for _, atom in design.prefixed("atom")):
        yield "pack: only wgmma needs aligned rows; drop it, or take wgmma"


__all__ = [
    "ALIGNED", "as_packed", "copy_design", "copy_program", "legal_packs", "packed", "unit_of", "with_packs",
    "without_packs", "worth_packing",
]  # fmt: skip
