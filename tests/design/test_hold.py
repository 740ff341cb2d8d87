"""Rows that rounds of a loop read again and again: which they are, and a program that holds them means the same."""

import numpy as np
import pytest

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.rows import fixed_dims
from tilewright.design.gpu.simt import legal_simt
from tilewright.design.hold import held_rows
from tilewright.language import ir, structure
from tilewright.language.interpreter import run
from tilewright.language.parser import parse
from tilewright.language.printer import show
from tilewright.language.verifier import verify
from tilewright.lower.gpu.simt import lower_simt
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS
from tilewright.runtime.compiled import dtypes_of

TILES = {"tile.m": 1, "tile.d": 16, "tile.d1": 16, "warps": 1, "lanes": ("d", "d1", "m")}


def topk(m=3, d=50, k=4):
    kernel = OPERATORS["topk"].kernel.trace(dtypes_of(OPERATORS["topk"].kernel, "f32", ()), options={"k": k})
    unit = {"x": (1,), "values": (1,), "index": (1,)}
    fixed = frozenset(fixed_dims(kernel))
    return kernel, Facts({"M": m, "D": d, "K": k}, unit, Machine.named("h200"), frozenset(unit), fixed)


def test_a_row_that_every_round_reads_is_known():
    kernel, _ = topk()
    held = held_rows(kernel)
    assert list(held) == ["x"]
    assert held["x"].axes == ("d", "d1")
    assert held["x"].rounds.axes[0].over == "K"


@pytest.mark.parametrize("name", ["rmsnorm", "softmax", "argmax", "swiglu", "rope"])
def test_a_row_that_is_read_in_no_rounds_is_none(name):
    assert held_rows(OPERATORS[name].kernel.trace(dtypes_of(OPERATORS[name].kernel, "f32", ()))) == {}


def test_places_that_change_from_round_to_round_and_what_is_written_are_not_held():
    text = """kernel k(x: f32[M, D], w: f32[K, D], y: f32[M, D]) {
      for m in M parallel {
        for each k in K {
          for d in D {
            a = load w[k, d] : f32[d]
            b = load y[m, d] : f32[m, d]
            c = load x[m, d] : f32[m, d]
            e = add a b : f32[m, d]
            f = add e c : f32[m, d]
            store y[m, d] = f
          } } } }"""
    assert list(held_rows(parse(text))) == ["x"]


def test_it_is_loaded_once_and_the_program_means_the_same():
    kernel, facts = topk()
    design = Design.of({**TILES, "hold.x": True})
    assert legal_simt(kernel, design, facts) == []
    lowered = lower_simt(kernel, design, facts)
    assert verify(lowered) == []
    assert parse(show(lowered)) == lowered
    assert [ref.buffer for _, ref in structure.loads(lowered)].count("x") == 1
    assert ir.note(lowered.notes, "lanes") == ("d", "d_held", "d1", "m")
    x = np.random.default_rng(0).integers(-9, 9, (3, 50)).astype(np.float32)
    given = {"x": x, "values": np.full((3, 4), np.nan, np.float32), "index": np.full((3, 4), -1, np.int32)}
    ours = {n: v.copy() for n, v in given.items()}
    run(kernel, given)
    run(lowered, ours)
    assert np.array_equal(given["values"], ours["values"])
    assert np.array_equal(given["index"], ours["index"])


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        ({"tile.d1": 32}, "hold.x: tile.d and tile.d1 differ"),
        ({"split.d": 2}, "hold.x: split.d and split.d1 differ"),
        ({"hold.values": True}, "topk has no such hold; it has x"),
    ],
)
def test_walks_that_differ_cannot_share_registers(decisions, message):
    kernel, facts = topk()
    reasons = legal_simt(kernel, Design.of({**TILES, "hold.x": True, **decisions}), facts)
    assert any(message in r.message for r in reasons), reasons


def test_a_row_too_long_for_registers_is_refused():
    kernel, facts = topk(d=1 << 16)
    reasons = legal_simt(kernel, Design.of({**TILES, "hold.x": True}), facts)
    assert any("registers a thread, and 128 is the most" in r.message for r in reasons), reasons
