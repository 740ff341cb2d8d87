"""The table of schedule decisions: what may be noted where, and what a refusal says."""

from __future__ import annotations

import pytest

from tilewright.language import ir
from tilewright.language.dtypes import f32
from tilewright.language.notes import NOTE_KEYS, SYNC_ACTIONS, check_note

KERNEL = ir.Kernel("k", (), ())
LOOP = ir.Loop((ir.Axis("i", "M"),), ())
LOAD = ir.Let("x", ir.TileType(f32), ir.Load(ir.Ref("a", ())))
DOT = ir.Let("d", ir.TileType(f32), ir.Dot("x", "y", "k"))
STORE = ir.Store(ir.Ref("a", ()), "x")
ALLOC = ir.Alloc("b", f32, ("M",))
SYNC = ir.Sync("team", "barrier")


@pytest.mark.parametrize(
    ("node", "key", "value"),
    [
        (KERNEL, "lanes", ("j", "i")),
        (LOOP, "bind", "thread"),
        (LOOP, "unroll", 4),
        (LOAD, "prefetch", 8),
        (LOAD, "cache", "evict_first"),
        (DOT, "atom", "fma"),
        (DOT, "lanes", "j"),
        (DOT, "inflight", 0),
        (STORE, "nontemporal", True),
        (ALLOC, "place", "panel"),
        (SYNC, "guards", ("sa", "sb")),
    ],
)
def test_a_note_in_its_place(node: ir.Stmt | ir.Kernel, key: str, value: ir.Note) -> None:
    assert check_note(node, key, value) is None


@pytest.mark.parametrize(
    ("node", "key", "value", "says"),
    [
        (LOOP, "unrol", 4, "did you mean 'unroll'"),
        (LOOP, "zzz", 4, "a Loop takes bind"),
        (LOAD, "atom", "fma", "belongs on Dot, not on a Load, which takes lanes"),
        (LOOP, "unroll", 0, "takes a positive integer"),
        (LOOP, "unroll", True, "takes a positive integer"),
        (DOT, "inflight", -1, "takes an integer, 0 or more"),
        (DOT, "atom", "gemm", "takes fma, bf16x2"),
        (STORE, "nontemporal", 1, "takes true or false"),
        (SYNC, "guards", (), "takes the name of an axis or buffer, names in parentheses"),
        (SYNC, "guards", (1, 2), "names in parentheses"),
        (ir.Assign("x", "y"), "unroll", 2, "which takes no notes"),
    ],
)
def test_a_refusal_says_why(node: ir.Stmt, key: str, value: ir.Note, says: str) -> None:
    assert says in str(check_note(node, key, value))


def test_table_names_nodes_that_exist() -> None:
    for key in NOTE_KEYS.values():
        assert all(hasattr(ir, name) for name in key.on), key
        assert key.doc
        assert key.values
    assert SYNC_ACTIONS
