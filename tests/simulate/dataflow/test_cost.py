"""What the statements of a stage cost, counted by hand: passes of lanes, products, ports, and main memory."""

from __future__ import annotations

import pytest

from tilewright.language import ir, structure
from tilewright.language.parser import parse
from tilewright.simulate.dataflow.cost import OPERATIONS, Work, work

from .machine import ARRAY

SIZES = {"M": 8, "N": 6, "K": 10}
TEXT = """kernel all(x: f32[M, K], w: bf16[N, K], u: bf16[M, K], y: f32[M, N], z: f32[M]) {
  a = load x[M, K] : f32[M, K]
  b = load w[N, K] : bf16[N, K]
  c = load u[M, K] : bf16[M, K]
  d = dot c b over K : f32[M, N]
  e = exp a : f32[M, K]
  f = add e a : f32[M, K]
  g = cast f : bf16[M, K]
  s = reduce sum f over K : f32[M]
  store y[M, N] = d
  store z[M] = s
}"""
KERNEL = parse(TEXT)


def cost(*names: str, units: int = 1, on_chip: tuple[str, ...] = ()) -> Work:
    """The work of the statements that define or store these names; tensors in `on_chip` are buffers."""
    body = tuple(s for s in KERNEL.body if getattr(s, "name", getattr(s, "value", "")) in names)
    types = {p.name: p.dtype for p in KERNEL.params}
    tensors = {n: t for n, t in types.items() if n not in on_chip}
    lets = {name: let.type for name, let in structure.lets(KERNEL).items()}

    def extent(dim: ir.Dim) -> int:
        return dim if isinstance(dim, int) else SIZES[dim]

    return work(body, extent, tensors, {n: types[n] for n in on_chip}, lets, ARRAY, units)


def test_a_function_passes_the_lanes_as_often_as_its_operations_ask():
    assert cost("e").compute == 80 / 4 * (OPERATIONS["exp"] / 2)  # 80 elements by 4 lanes, 2 stages a pass
    assert cost("f").compute == 20
    assert cost("e", "f").compute == 20 * 3  # 5 operations in a chain of 2 stages
    assert cost("e").flops == 80 and cost("g").flops == 0


def test_a_product_takes_lanes_and_stages_together():
    assert cost("d").compute == 8 * 6 * 10 / 8
    assert cost("d").flops == 2 * 480
    assert cost("d", units=7).compute == 9  # 60 cycles of one unit, rounded up


def test_a_reduction_reads_all_that_it_adds():
    assert cost("s").compute == 20 and cost("s").flops == 80


def test_streams_pass_their_ports_side_by_side_and_main_memory_one_after_the_other():
    found = cost("a", "b")
    assert found.port == 80 * 4 / 16  # the longer of the two
    assert found.memory == (80 * 4 + 60 * 2) / 8
    assert cost("a", "b", units=2).port == 10
    assert cost("a", units=2).memory == 40  # units share the one memory


def test_what_lies_on_chip_passes_ports_only():
    found = cost("a", "d", on_chip=("x", "y"))
    assert found.memory == 0 and found.port == 20
    stores = [s for s in KERNEL.body if isinstance(s, ir.Store)]
    assert len(stores) == 2


@pytest.mark.parametrize("units", [1, 3, 16])
def test_more_units_never_cost_more(units):
    one, more = cost("a", "e", "d"), cost("a", "e", "d", units=units)
    assert more.compute <= one.compute and more.port <= one.port and more.memory == one.memory
