"""Serial loops as C++: what each thread adds to, what is joined behind the loop, and which tiles a block takes."""

import pytest

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.rows import fixed_dims
from tilewright.design.twins import twins
from tilewright.emit.abi import TensorLayout
from tilewright.emit.cuda_loops import is_shared
from tilewright.emit.cuda_simt import emit_simt
from tilewright.language import ir
from tilewright.lower.gpu.simt import lower_simt
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS
from tilewright.runtime.compiled import dtypes_of

SIZES = {"M": 8, "D": 4096}


def lowered(name, length=4096, **decisions):
    """(scheduled program, C++) of an operator of rows."""
    sizes = {**SIZES, "D": length}
    kernel = OPERATORS[name].kernel.trace(dtypes_of(OPERATORS[name].kernel, "bf16", ()))
    tensors = {p.name: len(p.dims) for p in kernel.params if p.dims}
    unit = {t: (n - 1,) for t, n in tensors.items()}
    fixed = {d: sizes[d] for d in fixed_dims(kernel)}
    facts = Facts(sizes, unit, Machine.named("h200"), frozenset(tensors), frozenset(fixed))
    design = Design.of({"warps": 4, "vec.x": 8, **decisions})
    scheduled = lower_simt(kernel, design, facts)
    layouts = {t: TensorLayout(tuple([None] * (n - 1) + [1]), 16) for t, n in tensors.items()}
    return scheduled, emit_simt(scheduled, layouts, fixed, facts.machine).source


def test_threads_add_to_their_own_parts_which_are_joined_once():
    _, text = lowered("rmsnorm", **{"lanes": ("d", "d1", "m"), "tile.m": 1, "tile.d": 1024, "tile.d1": 1024})
    assert text.count("tw::fold(") == 1
    assert text.count("tw::join<") == 1
    assert text.index("tw::fold(") < text.index("tw::join<")
    assert "for (int d_at = 0; d_at < 4096; d_at += 1024)" in text


def test_a_row_that_one_thread_has_needs_no_join():
    _, text = lowered("rmsnorm", **{"lanes": ("m",), "tile.m": 128, "tile.d": 8, "tile.d1": 8})
    assert "tw::fold(" in text
    assert "tw::join<" not in text


@pytest.mark.parametrize("blocks", [2, 8])
def test_blocks_of_a_cluster_take_tiles_in_turn_and_join_their_sums(blocks):
    split = {f"split.{a}": blocks for a in ("d", "d1")}
    scheduled, text = lowered(
        "rmsnorm", **{"lanes": ("d", "d1", "m"), "tile.m": 1, "tile.d": 512, "tile.d1": 512}, **split
    )
    loops = [s for s in ir.walk(scheduled.body) if isinstance(s, ir.Loop) and not s.parallel]
    assert [is_shared(s) for s in loops] == [True, True]
    assert f"for (int d_at = 0 + rank * 512; d_at < 4096; d_at += {512 * blocks})" in text
    assert text.count(f"tw::join_blocks<{blocks}>(") == 1


def test_what_stays_in_registers_is_written_out_piece_by_piece():
    lanes = {"lanes": ("d", "d1", "m"), "tile.m": 1, "tile.d": 1024, "tile.d1": 1024}
    kept, text = lowered("softmax", **{**lanes, "lanes": ("d", "d1", "d2", "m"), "tile.d2": 1024}, **_keeps("softmax"))
    allocs = [s for s in ir.walk(kept.body) if isinstance(s, ir.Alloc)]
    assert len(allocs) == 1
    assert text.count("tw::load<") == 1
    assert text.count("for (int d1_nth = 0; d1_nth < 4; ++d1_nth)") == 1
    assert text.count("#pragma unroll\n") >= 3


def test_pieces_that_are_surely_whole_come_first_and_ask_for_no_edge():
    """A branch at an edge keeps the loads behind it waiting."""
    lanes = {"lanes": ("d", "d1", "d2", "m"), "tile.m": 1, "tile.d": 1024, "tile.d1": 1024, "tile.d2": 1024}
    _, text = lowered("softmax", 4100, **lanes, **_keeps("softmax"))
    first, last = "for (int d_nth = 0; d_nth < 4; ++d_nth)", "for (int d_nth = 4; d_nth < 5; ++d_nth)"
    assert text.index(first) < text.index(last)
    assert "Part<axis::d, 0> d(" in text[text.index(first) : text.index(last)]
    assert "Part<axis::d, 4> d(" in text[text.index(last) :]


def test_a_row_that_rounds_hold_keeps_its_edges():
    _, text = lowered("topk", 4100, **{"lanes": ("d", "d1", "m"), "tile.d": 1024, "tile.d1": 1024, "hold.x": True})
    assert "for (int d_nth = 0; d_nth < 5; ++d_nth)" in text
    assert "for (int d_held_nth = 0; d_held_nth < 4; ++d_held_nth)" in text  # what is loaded, is loaded at once


def _keeps(name):
    kernel = OPERATORS[name].kernel.trace(dtypes_of(OPERATORS[name].kernel, "bf16", ()))
    return {f"keep.{value}": True for value, twin in twins(kernel).items() if not twin.is_computed}
