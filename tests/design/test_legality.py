"""Every rule with a design that breaks it and one that keeps it; messages name the decision, its value and the fix."""

from __future__ import annotations

from dataclasses import replace

import pytest
from programs import facts, traced

from tilewright import operators
from tilewright.build.kernel_cache import Request, build
from tilewright.design.design import Design
from tilewright.design.legality import FORM, RULES, check, legal
from tilewright.emit.abi import TensorLayout
from tilewright.errors import IllegalDesign
from tilewright.machines.machine import Machine

MATMUL = traced("matmul", activation=None)
BF16 = traced("matmul", "bf16", activation=None)
BYTES = operators.matmul.kernel.trace({"a": "i8", "b": "i8", "c": "i32"}, options={"activation": None})
ATTENTION = traced("attention", causal=False, window=None)
RMSNORM = traced("rmsnorm")
SOFTMAX = traced("softmax")
SCALED = traced("scale_add")
TILED = {"tile.m": 8, "tile.n": 32, "lanes": ("n",)}
PAIRS = {**TILED, "tile.k": 2, "atom.dot0": "bf16x2", "pack.a": "pair", "pack.b": "pair"}
INNER = {"tile.m": 4, "tile.n": 4, "tile.k": 32, "lanes": ("k",), "atom.dot0": "bf16x2"}
AMX = {"tile.m": 32, "tile.n": 32, "tile.k": 32, "lanes": ("n",), "atom.dot0": "amx_bf16"}
AMX |= {"pack.a": "tile", "pack.b": "pair"}
ARGMAX = traced("argmax")
WIDENED = {**TILED, "pack.a": "panel", "pack.b": "panel", "unpack.a": True, "unpack.b": True}

# rule, program, decisions that break it, what the message says, decisions that keep it
CASES = [
    ("names", MATMUL, {"tile.q": 4}, "tile.q=4: matmul has no axis q; it has m, n, k", {"tile.m": 4}),
    ("names", MATMUL, {"pack.c0": "panel"}, "pack.c0=panel: matmul has no tensor c0; .* did you mean c?", TILED),
    ("names", MATMUL, {"atom.dot1": "fma"}, "atom.dot1=fma: matmul has no dot dot1; it has dot0", {"atom.dot0": "fma"}),
    ("names", MATMUL, {"lane": ("n",)}, r"lane=\(n\): no decision is called so; did you mean lanes?", TILED),
    ("names", ATTENTION, {"tile.b": 2}, "axis b visits single positions .* drop the decision", {"tile.t": 4}),
    ("names", ATTENTION, {"tile.D": 2}, "values lie along the whole of D", {"lanes": ("D",)}),
    ("names", RMSNORM, {"prefetch.w": 1}, "rmsnorm has no load w", {"prefetch.x0": 1}),
    ("values", MATMUL, {"tile.m": 0}, "tile.m=0: takes a whole number, 1 or more", {"tile.m": 1}),
    ("values", MATMUL, {"tile.m": True}, "tile.m=True: takes a whole number", {"tile.m": 1}),
    ("values", MATMUL, {"lanes": ("n", "n")}, r"lanes=\(n, n\): takes distinct names of axes", TILED),
    ("values", MATMUL, {"pack.a": "octet"}, "pack.a=octet: takes panel, pair, quad, tile, or is left out", {}),
    ("values", MATMUL, {"atom.dot0": "mma"}, "atom.dot0=mma: takes one of fma, bf16x2, vnni, amx_bf16", {}),
    ("values", MATMUL, {"nontemporal.c": 1}, "nontemporal.c=1: takes true or false", {}),
    ("values", MATMUL, {"threads": 0}, "threads=0: takes a whole number", {"threads": 2}),
    ("lanes", MATMUL, {"lanes": ("x",)}, r"lanes=\(x\): matmul has no tiled axis x", TILED),
    ("lanes", MATMUL, {**TILED, "tile.n": 24}, "tile.n=24: n lies across lanes, 16 to a vector; take 16", TILED),
    ("lanes", MATMUL, {**TILED, "tile.n": 12}, "tile.n=12: .* take 8", {**TILED, "tile.n": 8}),
    ("aparts", MATMUL, {"tile.k": 4, "apart.k": 2}, "apart.k=2: k is no axis of an outermost parallel loop; drop it",
     {"tile.n": 4, "apart.n": 2}),
    ("aparts", MATMUL, {"tile.n": 4, "apart.n": 8, "block.n": 32}, "a block is a range; drop block.n, or apart.n",
     {"tile.n": 4, "apart.n": 8}),
    ("aparts", MATMUL, {**TILED, "apart.n": 8, "pack.b": "panel"}, "b is packed, .* drop it, or pack.b",
     {**TILED, "apart.m": 8, "pack.b": "panel"}),
    ("aparts", MATMUL, {"apart.n": 8}, "apart.n=8: a tile has one point of n; drop it, or take tile.n=4",
     {"tile.n": 4, "apart.n": 8}),
    ("blocks", MATMUL, {"tile.m": 8, "block.m": 12}, "block.m=12: not a multiple of tile.m=8; take 16",
     {"tile.m": 8, "block.m": 16}),
    ("blocks", MATMUL, {"tile.m": 8, "block.m": 17}, "block.m=17: not a multiple of tile.m=8; take 24",
     {"tile.m": 8, "block.m": 24}),
    ("blocks", MATMUL, {"block.k": 64}, "block.k=64: the tiles around it are not blocked.* add block.m or block.n",
     {"block.k": 64, "block.m": 8}),
    ("blocks", RMSNORM, {"block.d": 64}, "block.d=64: d is no axis of a parallel loop", {"block.m": 4}),
    ("unrolls", MATMUL, {"unroll.m": 2}, r"unroll.m=2: m is not the last axis of a serial loop \(k\)", {"unroll.k": 2}),
    ("splits", MATMUL, {**TILED, "split.k": 2}, r"split.k=2: sums are split where .* put k first in lanes",
     {"tile.k": 32, "lanes": ("k",), "split.k": 2}),
    ("splits", BF16, {**INNER, "tile.k": 64, "split.k": 4}, "split.k=4: tile.k=64 has 2 vectors",
     {**INNER, "tile.k": 64, "split.k": 2}),
    ("splits", RMSNORM, {"tile.d": 64, "lanes": ("d1", "d"), "split.d": 3}, "split.d=3: .* a power of two",
     {"tile.d": 64, "lanes": ("d1", "d"), "split.d": 4}),
    ("parts", MATMUL, {"part.m": 64}, "part.m=64: m is no loop in order directly inside a parallel one; drop it",
     {"part.k": 64}),
    ("parts", MATMUL, {"tile.k": 32, "part.k": 48}, "part.k=48: not a multiple of tile.k=32; take 64",
     {"tile.k": 32, "part.k": 64}),
    ("parts", MATMUL, {"block.m": 8, "part.k": 64}, "part.k=64: .* one range each; drop block.m, or this",
     {"part.k": 64}),
    ("parts", SOFTMAX, {"part.d1": 64}, "part.d1=64: what comes before d1 would be done for each part; drop it",
     {"part.d": 64}),
    ("parts", ARGMAX, {"part.d": 64}, "part.d=64: its states cannot be joined", {}),
    ("keeps", RMSNORM, {"keep.x0": True}, "keep.x0=True: no earlier loop computes the same", {"keep.x1": True}),
    ("keeps", SOFTMAX, {"keep.exp1": True, "keep.sub1": True}, "keep.exp1=True: it is computed from sub1, which",
     {"keep.exp1": True}),
    ("keeps", SOFTMAX, {"keep.exp1": True, "block.m": 4}, "keep.exp1=True: .* drop the blocks", {"keep.exp1": True}),
    ("orders", MATMUL, {"order": ("m",)}, r"order=\(m\): takes a permutation of \(m, n\)", {"order": ("n", "m")}),
    ("orders", MATMUL, {"block.m": 8, "inner": ("n",)}, r"inner=\(n\): takes a permutation of \(m\)",
     {"block.m": 8, "inner": ("m",)}),
    ("packs", MATMUL, {**TILED, "pack.c": "panel"}, "pack.c=panel: c is not just an operand of dots; drop it",
     {**TILED, "pack.b": "panel"}),
    ("packs", ATTENTION, {"pack.k": "panel"}, "pack.k=panel: its index D is no axis of a loop", {}),
    ("packs", MATMUL, {**TILED, "pack.b": "pair"}, "b is f32, and only 16-bit floats go in pairs; take panel",
     {**TILED, "pack.b": "panel"}),
    ("packs", BF16, {**TILED, "pack.b": "pair"}, "atom.dot0 is fma, which reads single elements; take panel", PAIRS),
    ("packs", MATMUL, {"tile.k": 16, "lanes": ("k",), "pack.b": "panel"},
     "pack.b=panel: dot0 has its lanes along k, across the panels", {"tile.k": 16, "lanes": ("k",)}),
    ("locals", MATMUL, {**TILED, "local.b": True}, "local.b=True: nothing is packed; add pack.b=panel",
     {**TILED, "pack.b": "panel", "local.b": True, "block.n": 64, "block.m": 16}),
    ("locals", MATMUL, {**TILED, "pack.b": "panel", "local.b": True}, "there are no blocks; add block.n",
     {**TILED, "pack.b": "panel"}),
    ("unpacks", BF16, {**TILED, "unpack.a": True, "unpack.b": True}, "unpack.a=True: .* add pack.a=panel", WIDENED),
    ("unpacks", BF16, {n: c for n, c in WIDENED.items() if n != "unpack.b"}, "narrower operand; add unpack.b=True",
     WIDENED),
    ("unpacks", MATMUL, WIDENED, "unpack.a=True: a is f32, which is not a 16-bit float", {**TILED, "pack.a": "panel"}),
    ("pairs", MATMUL, {**INNER}, "atom.dot0=bf16x2: a0 is f32, not bf16; take fma", {}),
    ("pairs", BF16, {**INNER, "atom.dot0": "vnni"}, "atom.dot0=vnni: a0 is bf16, not i8; take fma", INNER),
    ("pairs", BYTES, {**INNER, "lanes": ("n",), "tile.n": 16, "atom.dot0": "vnni"}, "put k first in lanes",
     {**INNER, "atom.dot0": "vnni"}),
    ("pairs", ATTENTION, {"atom.dot0": "bf16x2"}, "not bf16; take fma", {}),
    ("pairs", BF16, {**INNER, "tile.k": 16}, "tile.k=16 is not a multiple of 32, a vector of pairs; take 32", INNER),
    ("pairs", BF16, {**PAIRS, "tile.n": 8}, "tile.n=8 does not fill vectors of 16; take 16", PAIRS),
    ("pairs", BF16, {**PAIRS, "tile.k": 3}, "tile.k=3 is odd, and two neighbours are multiplied at once", PAIRS),
    ("pairs", BF16, {n: c for n, c in PAIRS.items() if n != "pack.a"}, "not side by side in a; add pack.a=pair", PAIRS),
    ("pairs", BF16, {n: c for n, c in PAIRS.items() if n != "lanes"}, "no axis of the result lies across lanes", PAIRS),
    ("aheads", MATMUL, {**TILED, "pack.b": "panel", "ahead.b0": 4}, "b is packed, and read from its panel; drop it",
     {**TILED, "ahead.b0": 4}),
    ("aheads", RMSNORM, {"ahead.x0": 4, "prefetch.x0": 1}, "fetched ahead along the parallel loop already; drop this",
     {"ahead.x0": 4}),
    ("aheads", SCALED, {"ahead.a0": 4}, r"ahead.a0=4: it has no stride of one along a serial loop \(none\)", {}),
    ("prefetches", RMSNORM, {"prefetch.x1": 1, "block.m": 8}, "its place does not move with the tiles dealt out",
     {"prefetch.x1": 1}),
    ("prefetches", MATMUL, {**TILED, "pack.b": "panel", "prefetch.b0": 1}, "b is packed, and read from its panel",
     {**TILED, "prefetch.b0": 1}),
    ("values", MATMUL, {"dealt": "runs"}, "dealt=runs: takes turns or drawn, or is left out", {"dealt": "drawn"}),
    ("dealt", RMSNORM, {"dealt": "turns", "prefetch.x0": 1}, "prefetch.x0=1 fetches the next tile of a run",
     {"dealt": "drawn", "prefetch.x0": 1}),
    ("dealt", MATMUL, {"dealt": "drawn", "threads": 1}, "one thread takes all tiles; drop it, or threads=1",
     {"dealt": "drawn", "threads": 2}),
    ("registers", MATMUL, {**TILED, "tile.m": 64}, "tile.m=64, tile.n=32: 128 vectors .* and 64 is the most", TILED),
    ("scratch", MATMUL, {"block.k": 8, "block.m": 4096, "block.n": 4096},
     "block.k=8, block.m=4096, block.n=4096: unfinished tiles take 64 MiB for each thread, and 16 is the most",
     {"block.k": 8, "block.m": 512, "block.n": 512}),
    ("code", MATMUL, {**TILED, "unroll.k": 512}, "unroll.k=512: about .* instructions, and 12000 is the most",
     {**TILED, "unroll.k": 8}),
]  # fmt: skip


@pytest.mark.parametrize("rule, program, bad, message, good", CASES, ids=lambda x: x if isinstance(x, str) else "")
def test_rule(rule, program, bad, message, good):
    known = facts(program)
    found = [r for r in legal(program, Design.of(bad), known) if r.rule == rule]
    assert found, legal(program, Design.of(bad), known)
    with pytest.raises(IllegalDesign, match=message):
        check(program, Design.of(bad), known)
    assert check(program, Design.of(good), known) == Design.of(good)


def test_rules_that_depend_on_facts():
    zen5, avx2 = facts(BF16), facts(BF16, "x86-avx2")
    amx = facts(BF16, "sapphire-rapids")
    assert said(BF16, PAIRS, zen5) == ""
    assert "x86-avx2 has no avx512bf16; take fma" in said(BF16, {**PAIRS, "tile.m": 2, "tile.n": 16}, avx2)
    assert "zen5 has no amx-bf16; take fma" in said(BF16, AMX, zen5)
    assert said(BF16, AMX, amx) == ""
    assert "take 6 accumulators and 2 for an operand, and 7 of the 8" in said(BF16, {**AMX, "tile.m": 48}, amx)
    assert said(BF16, {**AMX, "tile.m": 96, "tile.n": 16}, amx) == ""
    assert "take 7 accumulators and 1 for" in said(BF16, {**AMX, "tile.m": 112, "tile.n": 16}, amx)
    assert "tile.k=64 is more than the 32 of a register; take 32" in said(BF16, {**AMX, "tile.k": 64}, amx)
    assert "tile.k=16 does not fill tile registers of 32" in said(BF16, {**AMX, "tile.k": 16}, amx)
    assert "add pack.b=pair" in said(BF16, {n: c for n, c in AMX.items() if n != "pack.b"}, amx)
    assert "put one of (m, n) first in lanes" in said(BF16, {**AMX, "lanes": ("k",)}, amx)
    # Pairs along the sum are read as they lie: only where neighbours are neighbours in memory.
    assert said(BF16, INNER, zen5) == ""
    assert "b has no stride of one along k" in said(BF16, INNER, facts(BF16, unit=0))


def test_tile_registers_hold_twice_as_many_bytes_as_pairs():
    bytes_ = traced("matmul", "i8", activation=None)
    known = facts(bytes_, "sapphire-rapids")
    design = {**AMX, "tile.k": 64, "atom.dot0": "amx_int8", "pack.b": "quad"}
    assert said(bytes_, design, known) == ""
    assert "zen5 has no amx-int8; take fma" in said(bytes_, design, facts(bytes_, "zen5"))
    assert "tile.k=32 does not fill tile registers of 64" in said(bytes_, {**design, "tile.k": 32}, known)
    assert "b is i8, and only 16-bit floats go in pairs; take quad" in said(bytes_, {**design, "pack.b": "pair"}, known)
    assert "a is bf16, and only bytes go four by four; take pair" in said(BF16, {**AMX, "pack.a": "quad"}, known)
    assert "a0 is i8, not bf16; take fma" in said(bytes_, AMX | {"pack.b": "quad"}, known)
    assert "fma, which reads single elements; take panel" in said(
        bytes_, {"lanes": ("n",), "tile.n": 16, "pack.b": "quad"}, known
    )


def test_sizes_that_are_part_of_the_kernel_must_fill_vectors():
    small = replace(facts(BF16, K=20, N=5), fixed=frozenset({"K", "N"}))
    assert "K is always 20, less than 32, a vector of pairs" in said(BF16, INNER, small)
    assert "N is always 5, less than a vector of 16" in said(BF16, PAIRS, small)
    assert said(BF16, INNER, replace(small, fixed=frozenset())) == ""


def test_pairs_of_an_even_sum_need_no_packing_of_the_rows():
    unpacked = {n: c for n, c in PAIRS.items() if n != "pack.a"}
    even = replace(facts(BF16, K=64), fixed=frozenset({"K"}))
    assert said(BF16, unpacked, even) == ""
    assert "add pack.a=pair" in said(BF16, unpacked, replace(even, sizes={**even.sizes, "K": 63}))
    assert "add pack.a=pair" in said(BF16, unpacked, replace(even, fixed=frozenset()))


def test_a_sum_without_terms_has_no_last_block():
    blocked = {**TILED, "block.m": 8, "block.k": 64}
    assert "K is 0, and the last of no blocks writes nothing" in said(MATMUL, blocked, facts(MATMUL, K=0))
    assert said(MATMUL, blocked, facts(MATMUL, K=1)) == ""


def test_stores_around_the_caches_are_whole_lines():
    program = traced("scale_add")
    streamed = {"tile.d": 16, "lanes": ("d",), "nontemporal.c": True}
    aligned = replace(facts(program), aligned=frozenset({"a", "b", "c"}))
    assert said(program, streamed, aligned) == ""
    assert "rows of c do not start at multiples of 64 bytes" in said(program, streamed, facts(program))
    assert "it takes whole vectors; lay d across lanes" in said(program, {**streamed, "tile.d": 8}, aligned)
    assert "a is not written" in said(program, {"nontemporal.a": True}, aligned)


def test_whole_dimensions_are_no_fault_of_the_design():
    """A head of 4096 elements takes many registers and instructions whatever the tiles are."""
    known = facts(ATTENTION, D=4096, E=4096)
    assert said(ATTENTION, {"lanes": ("D", "E", "t"), "tile.t": 2}, known) == ""
    assert "tile.t=16: about" in said(ATTENTION, {"lanes": ("D", "E", "t"), "tile.t": 16}, known)


def test_sizes_that_are_not_known_are_not_judged():
    bare = replace(facts(MATMUL), sizes={})
    assert said(MATMUL, {**TILED, "block.m": 8, "block.k": 64}, bare) == ""


def test_every_rule_has_a_case():
    tested = {rule for rule, *_ in CASES} | {"features", "tiles", "nontemporal"}
    assert tested == {rule.name for rule in (*FORM, *RULES)}


def test_the_message_of_all_reasons():
    with pytest.raises(IllegalDesign) as error:
        check(MATMUL, Design.of({"unroll.m": 2, "block.k": 4}), facts(MATMUL))
    lines = str(error.value).splitlines()
    assert lines[0].endswith("is illegal for matmul on zen5:")
    assert [line.split("]")[0].strip() for line in lines[1:]] == ["[blocks", "[unrolls"]
    assert lines[2].endswith("(only the innermost axis of a loop in order is written out several times)")


def test_an_illegal_design_is_refused_before_anything_is_emitted(monkeypatch):
    monkeypatch.setattr("tilewright.build.stages.emit", lambda *_: pytest.fail("it was emitted"))
    layouts = tuple((n, TensorLayout((None, 1))) for n in "abc")
    request = Request(MATMUL, Design.of({"tile.q": 2}), layouts, ())
    with pytest.raises(IllegalDesign, match="matmul has no axis q"):
        build(request, Machine.named("x86-avx2"))


def said(program, decisions, known):
    return "\n".join(map(str, legal(program, Design.of(decisions), known)))
