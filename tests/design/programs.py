"""Traced operators and facts that the tests of designs share."""

from __future__ import annotations

from typing import Any

from tilewright import operators
from tilewright.design.default import Facts
from tilewright.language import Tensor, ir
from tilewright.machines.machine import Machine

INTEGERS = {"ids", "positions", "slots", "lengths", "page_table", "index", "q_from", "q_to", "k_from", "k_to"}
SHIPPED = ("x86-avx2", "x86-avx512", "zen5", "sapphire-rapids", "arm-neon")
SIZES = {"M": 512, "N": 1024, "K": 2048, "B": 2, "D": 64, "E": 64, "R": 32, "T": 300, "S": 100, "H": 8, "G": 4}
WHOLE = {"D", "E", "R"}


def traced(name: str, element: str = "f32", full: bool = False, **options: Any) -> ir.Kernel:
    """The program of an operator, with its optional operands where `full`."""
    signature = operators.OPERATORS[name].kernel.signature
    tensors = [
        p.name
        for p in signature.params
        if isinstance(p.spec, Tensor) and p.spec.dtype is None and (full or not p.optional)
    ]
    return operators.OPERATORS[name].kernel.trace(
        {t: "i64" if t in INTEGERS else element for t in tensors}, options=options
    )


def facts(program: ir.Kernel, machine: str | Machine = "zen5", unit: int | None = -1, **sizes: int) -> Facts:
    """Facts at ordinary sizes; `unit` is the dimension of stride one in every tensor."""
    known = {d: SIZES.get(d, 16) for d in program.dims} | sizes
    places = {p.name: (unit % len(p.dims),) for p in program.params if p.dims and unit is not None}
    chosen = Machine.named(machine) if isinstance(machine, str) else machine
    return Facts(known, places, chosen, fixed=frozenset(WHOLE & set(known)))
