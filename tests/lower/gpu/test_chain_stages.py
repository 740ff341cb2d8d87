"""Every stage of the lowering of chained products keeps the meaning of the program; roles and bounds of masks fit."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chains import BASE, DESIGNS, PROGRAMS, attention, design, facts, inputs, results

from tilewright.design.gpu.chain import chain
from tilewright.design.legality import legal
from tilewright.language import ir
from tilewright.language.interpreter import Execution
from tilewright.language.parser import parse
from tilewright.language.printer import show
from tilewright.language.structure import rewrite
from tilewright.language.verifier import verify
from tilewright.lower.gpu.chain import CHAIN_STAGES
from tilewright.lower.gpu.stages import lower_gpu
from tilewright.operators import OPERATORS

sys.path.append(str(Path(__file__).parents[2] / "docs"))
from protocol import Protocol

PLAIN_OPERATORS = ("matmul", "softmax", "rmsnorm", "gate_up", "rope", "paged_attention")


def close(found, expected):
    """Sums in another order, rounded to bf16 at the end: two steps of it."""
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        sums = ~np.isneginf(x)  # rows that see nothing have no sum
        np.testing.assert_array_equal(~np.isneginf(found[name]), sums)
        assert np.isfinite(found[name][sums]).all()
        assert np.abs(found[name][sums] - x[sums]).max() <= 2.0**-7 * max(1.0, np.abs(x[sums]).max()), name


@pytest.mark.parametrize("decisions", DESIGNS.values(), ids=DESIGNS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_scheduled_chain_computes_what_was_written(name, decisions):
    kernel = PROGRAMS[name]
    known, chosen = facts(kernel), design(kernel, decisions)
    assert legal(kernel, chosen, known) == []
    tensors = inputs(kernel, dict(known.sizes))
    close(results(lower_gpu(kernel, chosen, known), tensors), results(kernel, tensors))


PACKED = {
    "16 rows each": ({"rows": 16, "tile.g": 4, "warpgroups": 1}, {"S": 21, "G": 3}),
    "64 rows each": ({"rows": 64, "tile.g": 2, "store": "tma", "overlap": True}, {"S": 70, "G": 3}),
}


@pytest.mark.parametrize("name", [n for n, k in PROGRAMS.items() if k.name == "attention"])
@pytest.mark.parametrize("packed", PACKED)
def test_a_chain_with_packed_rows_computes_what_was_written(packed, name):
    decisions, sizes = PACKED[packed]
    kernel = PROGRAMS[name]
    known, chosen = facts(kernel, T=130, **sizes), design(kernel, {**BASE, **decisions})
    assert legal(kernel, chosen, known) == []
    tensors = inputs(kernel, dict(known.sizes))
    program = lower_gpu(kernel, chosen, known)
    assert verify(program) == [] and parse(show(program)) == program
    close(results(program, tensors), results(kernel, tensors))


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_stage_ends_in_a_good_program(name):
    kernel = program = PROGRAMS[name]
    known, chosen = facts(kernel), design(kernel, DESIGNS["drawn, by the engine"])
    tensors = inputs(kernel, dict(known.sizes), seed=1)
    expected = results(kernel, tensors)
    for stage_name, stage in CHAIN_STAGES:
        program = stage(program, chosen, known)
        assert verify(program) == [], stage_name
        assert parse(show(program)) == program, stage_name
        close(results(program, tensors), expected)


@pytest.mark.parametrize("name", PLAIN_OPERATORS)
def test_what_is_no_chain_is_told_why(name):
    kernel = OPERATORS[name].kernel.trace("bf16" if name != "paged_attention" else {
        **dict.fromkeys(("q", "k_pages", "v_pages", "o"), "bf16"), "page_table": "i32", "lengths": "i32"})  # fmt: skip
    assert isinstance(chain(kernel), str)


def lowered(name, decisions=BASE, **sizes):
    kernel = PROGRAMS[name]
    return lower_gpu(kernel, design(kernel, decisions), facts(kernel, **sizes))


class Watch(Execution):
    """Notes for every step over columns whether its masks hold everywhere, and whether it lies in the bounds."""

    def __init__(self, kernel, exact, sizes):
        super().__init__(kernel, exact, sizes)
        self.main = next(s for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) and ir.note(s.notes, "free"))
        self.seen = []

    def stmt(self, stmt):
        if isinstance(stmt, ir.Let) and isinstance(stmt.expr, ir.Map) and ir.note(stmt.notes, "free"):
            low, high = (int(self.scalar(x)) for x in ir.note(self.main.notes, "free"))
            tile = self.range(self.main.axes[0].name)
            at, past = tile.start, tile.stop
            self.seen.append((bool(np.all(self.values[stmt.expr.args[0]][1])), low <= at and past <= high))
        super().stmt(stmt)


@pytest.mark.parametrize("name", ["causal", "f16", "ragged window", "capped"])
def test_between_the_bounds_no_mask_fails_and_outside_they_do(name):
    kernel = PROGRAMS[name]
    scheduled = lowered(name, {**BASE, "columns": 32})
    sizes = dict(facts(kernel).sizes)
    watch = Watch.of(scheduled, inputs(kernel, sizes), {"scale": 0.125}, 64, exact=False)
    watch.block(scheduled.body)
    inside = [holds for holds, free in watch.seen if free]
    outside = [holds for holds, free in watch.seen if not free]
    assert inside and all(inside)
    assert outside and not all(outside)


def test_masks_that_compare_something_else_stay():
    kernel = attention(causal=True)
    body = rewrite(
        kernel.body,
        lambda s: replace(s, expr=ir.Map("eq", s.expr.args)) if isinstance(s, ir.Let) and isinstance(s.expr, ir.Map)
        and s.expr.op == "le" else s,
    )  # fmt: skip
    odd = replace(kernel, body=body)
    scheduled = lower_gpu(odd, design(odd, BASE), facts(odd))
    assert not any("free" in dict(s.notes) for s in ir.walk(scheduled.body) if hasattr(s, "notes"))


def test_loop_bounds_are_those_of_a_block():
    (grid,) = lowered("causal").body
    main = next(s for s in grid.body if isinstance(s, ir.Loop))
    lets = {s.name: s for s in grid.body if isinstance(s, ir.Let)}
    assert main.axes[0].stop in lets and "s0" in {a for s in lets.values() for a in s.type.axes}
    assert not any(isinstance(s, ir.Let) and isinstance(s.expr, ir.Load) for s in grid.body)


def flat(kernel):
    """Loops over warpgroups taken as one: all of a role's warps wait and arrive together."""

    def body(stmts):
        found = []
        for s in stmts:
            if isinstance(s, ir.Loop) and ir.note(s.notes, "bind") == "warpgroup":
                found += body(s.body)
            elif isinstance(s, (ir.Loop, ir.Role)):
                found.append(replace(s, body=body(s.body)))
            else:
                found.append(s)
        return tuple(found)

    return replace(kernel, body=body(kernel.body))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("design_name", ["plain", "one warpgroup", "staying"])
@pytest.mark.parametrize("name", ["full", "two layers"])
def test_roles_neither_stick_nor_overwrite_what_is_read(name, design_name, seed):
    assert Protocol(flat(lowered(name, DESIGNS[design_name])), 5, seed).run() == "done"


def test_notes_say_what_lags_and_what_is_kept_apart():
    text = show(lowered("causal", DESIGNS["turns"]))
    assert text.count("@behind=1") == 1 and text.count("@how=split") == 1
    assert "sync turn wait" in text and "sync turn arrive" in text
    assert "@free=" in text and "select le0 mul1" in text
