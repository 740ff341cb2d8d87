"""Products by every kind of design for the matrix unit, on the GPU: whole tiles, ragged ones, epilogues, batches.

The same designs are interpreted, compiled and looked at without a GPU; here they run. Operands are small whole
numbers, so that every sum is exact and a wrong element cannot hide in a bound.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "lower" / "gpu")]

from gpu_products import bound, has_wgmma, whole
from products import BASE, DESIGNS, PRODUCTS, design, traced

from tilewright.operators import OPERATORS
from tilewright.runtime.cuda.measure import captured

SIZES = {"whole tiles": (512, 768, 384), "ragged": (333, 1048, 456), "few": (21, 520, 1032)}
ORDERS = {
    "row": {"grid.order": "row"}, "grouped": {"grid.order": "grouped", "grid.group": 3},
    "hilbert": {"grid.order": "hilbert"},
}  # fmt: skip


pytestmark = pytest.mark.skipif(not has_wgmma(), reason="this GPU has no wgmma")


def operands(name, m, n, k):
    """(tensors without the result, the result in float64) of a product."""
    kind = PRODUCTS[name][1]["c" if name != "gate_up" else "y"]
    if name == "gate_up":
        x, gate, up = whole(kind, m, k) / 8, whole(kind, n, k) / 64, whole(kind, n, k) / 64
        g = x.double() @ gate.double().t()
        return {"x": x, "gate": gate, "up": up}, g * torch.sigmoid(g) * (x.double() @ up.double().t())
    lead = (2,) if name == "batched" else ()
    a, b = whole(kind, *lead, m, k), whole(kind, *lead, n, k)
    exact = a.double() @ b.double().mT
    if name != "epilogue":
        return {"a": a, "b": b}, exact
    bias, residual = whole(kind, n), whole(kind, m, n)
    exact = (exact + bias.double()).clamp(min=0) + residual.double()
    return {"a": a, "b": b, "bias": bias, "residual": residual}, exact


def check(name, decisions, sizes, replays=2):
    """A product by a design, launched as links of a graph, is what it should be each time."""
    given, exact = operands(name, *sizes)
    operator, types, options = PRODUCTS[name]
    out = OPERATORS[operator].outputs[0]
    kind = {"bf16": torch.bfloat16, "f16": torch.float16}[types[out]]
    given[out] = torch.full(exact.shape, float("nan"), device="cuda", dtype=kind)
    kernel = traced(name)
    launch = bound(operator, given, lambda p, facts: dict(design(kernel, decisions).decisions), options=options)
    launch()
    replay = captured(lambda: [launch() for _ in range(4)])
    for _ in range(replays):
        given[out].fill_(float("nan"))
        replay()
        torch.cuda.synchronize()
        if name == "gate_up":
            torch.testing.assert_close(given[out].double(), exact, rtol=2e-2, atol=2e-2 * float(exact.abs().max()))
        else:
            assert torch.equal(given[out], exact.to(kind))


# Two tiles of rows there have to be for a cluster along them. Whatever else a product has, its tiles are the same.
CASES = [
    (name, design, size)
    for name in PRODUCTS
    for design in DESIGNS
    for size in SIZES
    if (design, size) != ("cluster of rows", "few") and (name == "matmul" or size == "ragged")
]


@pytest.mark.parametrize(("name", "decisions", "sizes"), CASES, ids=["-".join(case) for case in CASES])
def test_every_kind_of_design_gives_every_element(name, decisions, sizes):
    check(name, DESIGNS[decisions], SIZES[sizes])


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("sizes", [(1280, 1536, 64), (2048, 264, 64), (130, 4104, 64)], ids=str)
def test_every_tile_is_dealt_once_in_any_order(sizes, order, stays):
    tiles = {**BASE, "tile.m": 64, "tile.n": 64, "warpgroups": 1, **ORDERS[order]}
    check("matmul", {**tiles, **({"persistent": True} if stays else {})}, sizes, replays=1)
