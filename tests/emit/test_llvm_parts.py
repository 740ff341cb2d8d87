"""Kernels whose loops are dealt to threads in parts: sums, maxima, online softmax; on one thread and on several."""

from __future__ import annotations

import numpy as np
import pytest
from cases import FLOATS, Case
from compiled import Guarded, Run, machines
from programs import traced

from tilewright import operators
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.emit.abi import TensorLayout
from tilewright.emit.llvm import VectorUnit, emit
from tilewright.emit.llvm_parts import in_parts, phases
from tilewright.lower.stages import lower
from tilewright.runtime import launch


@pytest.fixture(params=[1, 2, 3])
def threads(request, monkeypatch):
    """So many threads, however little there is to do."""
    monkeypatch.setenv("TILEWRIGHT_THREADS", str(request.param))
    monkeypatch.setattr(launch, "_WORTH_A_TEAM", 0.0)


@pytest.mark.parametrize("bits", ["128", "256", "512"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 64), (3, 9, 200), (2, 16, 1000), (4, 4, 0)])
def test_sums_of_products(bits, shape, threads):
    if bits not in machines():
        pytest.skip(f"this processor has no vectors of {bits} bits")
    (m, n, k), memory = shape, Guarded(sum(shape), "rows")
    inputs = {"a": memory.normal((m, k)), "b": memory.normal((n, k))}
    case = Case(operators.matmul, inputs, {"c": ((m, n), np.float32)}, options={"activation": None})
    drawn = Run(case, memory, machines()[bits])
    for lanes, points in ((("k", "n"), 32), (("n",), 7), (("m", "n"), 64)):
        tiles = {"tile.m": 2, "tile.n": 4, "tile.k": 32 if lanes[0] == "k" else 1, "lanes": lanes}
        drawn.check(drawn.kernel(Design.of({**tiles, "part.k": points})))
    packed = {"tile.m": 4, "tile.n": 16, "lanes": ("n",), "pack.a": "panel", "pack.b": "panel", "part.k": 48}
    drawn.check(drawn.kernel(Design.of(packed)))


@pytest.mark.parametrize("name, axis, shape", [
    ("rmsnorm", "d", (3, 777)), ("softmax", "d", (1, 1500)), ("layernorm", "d", (2, 130)), ("rmsnorm", "d", (4, 0)),
])  # fmt: skip
def test_rows_before_what_follows_them(name, axis, shape, threads):
    """What comes after the loop, other loops among it, sees the whole of it."""
    memory = Guarded(sum(shape), "rows")
    scalars = {} if name == "softmax" else {"eps": 1e-5}
    inputs = {"x": memory.normal(shape, FLOATS[1])}
    weights = {"rmsnorm": ("weight",), "layernorm": ("weight", "bias")}.get(name, ())
    inputs |= {w: memory.normal(shape[1:], FLOATS[1]) for w in weights}
    case = Case(getattr(operators, name), inputs, {"y": (shape, FLOATS[1])}, scalars)
    drawn = Run(case, memory, machines()[max(machines())])
    base = {n: c for n, c in default_design(drawn.program, drawn.facts()).decisions if not n.startswith("keep")}
    drawn.check(drawn.kernel(Design.of({**base, f"part.{axis}": 2 * int(base.get(f"tile.{axis}", 1))})))


@pytest.mark.parametrize("lengths", [None, [300, 1, 64]])
def test_attention_of_one_query_by_parts_of_its_keys(lengths, threads):
    """An online softmax: parts are brought to one maximum; parts past a sequence's end are empty."""
    memory = Guarded(7, "rows")
    inputs = {
        "q": memory.normal((3, 2, 2, 1, 64), FLOATS[1]),
        "k": memory.normal((3, 2, 300, 64), FLOATS[1]),
        "v": memory.normal((3, 2, 300, 64), FLOATS[1]),
        "lengths": None if lengths is None else memory.laid_out(np.array(lengths, np.int64)),
    }
    case = Case(
        operators.attention, inputs, {"o": ((3, 2, 2, 1, 64), FLOATS[1])}, {"scale": 0.125},
        options={"causal": False, "window": None},
    )  # fmt: skip
    drawn = Run(case, memory, machines()[max(machines())])
    base = default_design(drawn.program, drawn.facts())
    drawn.check(drawn.kernel(base.with_(part__t=64 // base.number("tile.t", 1) * base.number("tile.t", 1))))


def test_a_slot_of_memory_for_each_tile_and_part():
    design = Design.of({"tile.m": 1, "tile.n": 4, "tile.k": 32, "lanes": ("k", "n"), "part.k": 64})
    program = lower(traced("matmul", activation=None), design)
    layouts = {p.name: TensorLayout((None, 1)) for p in program.params}
    (slots,) = emit(program, layouts, {}, VectorUnit(64, frozenset())).workspace
    assert slots.bytes({"M": 3, "N": 9, "K": 200}) == 3 * 3 * 4 * 64  # 4 sums are less than a line, which is the least
    assert [len(loop.axes) for loop in phases(program)] == [3, 2]
    assert set(in_parts(program)) == {"acc0_parts"}
