"""The thread listing: its form, and that executing it gives what the program means."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from listing_machine import execute

from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.design.mutations import Vectorise
from tilewright.emit.abi import TensorLayout
from tilewright.emit.listing import listing
from tilewright.emit.listing_page import LONGEST, Names, Page, several
from tilewright.emit.llvm import VectorUnit, emit
from tilewright.language import ir, structure
from tilewright.language.interpreter import run
from tilewright.lower.stages import lower
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS


def scheduled(operator: str, dtype: str = "f32", options: dict[str, Any] | None = None, **decisions: Any) -> ir.Kernel:
    dots = {k.replace("__", "."): v for k, v in decisions.items()}
    return lower(OPERATORS[operator].kernel.trace(dtype, options=options), Design.of(dots))


def layouts(program: ir.Kernel) -> dict[str, TensorLayout]:
    return {p.name: TensorLayout((None,) * (len(p.dims) - 1) + (1,)) for p in program.params if p.dims is not None}


def body(program: ir.Kernel, vector_bytes: int = 16, **sizes: int) -> str:
    """The listing without its three lines of explanation."""
    text = listing(program, layouts(program), sizes, VectorUnit(vector_bytes, frozenset()))
    return "\n".join(line for line in text.splitlines()[3:] if line)


# ------------------------------------------------------------------------------------------------ goldens
def test_outer_product():
    program = scheduled("matmul", lanes=("n",), tile__m=2, tile__n=2, tile__k=1)
    assert (
        body(program)
        == """\
for m, n in share(range(0, M, 2), range(0, N, 2)):
  (acc0, acc1), (acc2, acc3) = 0.0
  for k in range(0, K):
    a0 = load(a, (m, k), vec=1)
    b0 = load(b, (n, k), vec=1)
    b1 = load(b, (n + 1, k), vec=1, clamp=n)
    (acc0, acc1) = fma(a0, pack(b0, b1), (acc0, acc1))
    a1 = load(a, (m + 1, k), vec=1, clamp=m)
    (acc2, acc3) = fma(a1, pack(b0, b1), (acc2, acc3))
  store(c, (m, n), (acc0, acc1), vec=2, mask=(m, n))
  store(c, (m + 1, n), (acc2, acc3), vec=2, mask=(m, n))"""
    )


def test_inner_product():
    program = scheduled("matmul", lanes=("k",), tile__m=1, tile__n=2, tile__k=16)
    assert (
        body(program, 64)
        == """\
for m, n in share(range(0, M), range(0, N, 2)):
  acc0, acc1 = 0.0
  for k in range(0, K, 16):
    a0 = load(a, (m, k), vec=16)
    b0 = load(b, (n, k), vec=16)
    acc0 = fma(a0, b0, acc0)
    b1 = load(b, (n + 1, k), vec=16, clamp=n)
    acc1 = fma(a0, b1, acc1)
  acc0 = 0.0 + sum_lanes(acc0)
  acc1 = 0.0 + sum_lanes(acc1)
  store(c, (m, n), pack(acc0, acc1), vec=2, mask=n)"""
    )


def test_elementwise_with_streaming_stores():
    program = scheduled("scale_add", lanes=("d",), tile__m=1, tile__d=16, nontemporal__c=True)
    assert (
        body(program, 32)
        == """\
for m, d in share(range(0, M), range(0, D, 16)):
  a0 = load(a, (m, d), vec=8)
  a1 = load(a, (m, d + 8), vec=8)
  mul0 = alpha * a0
  mul1 = alpha * a1
  b0 = load(b, (m, d), vec=8)
  b1 = load(b, (m, d + 8), vec=8)
  add0 = mul0 + b0
  add1 = mul1 + b1
  store(c, (m, d), add0, cache=cs, vec=8)
  store(c, (m, d + 8), add1, cache=cs, vec=8)"""
    )


def test_blocks_and_unrolled_loops():
    program = scheduled(
        "matmul", lanes=("n",), tile__m=1, tile__n=8, tile__k=1, unroll__k=4, block__m=4, block__n=16, block__k=128
    )
    lines = body(program, 32).splitlines()
    assert lines[:8] == [
        "for m0, n0 in share(range(0, M, 4), range(0, N, 16)):",
        "  m0_end = min(m0 + 4, M)",
        "  n0_end = min(n0 + 16, N)",
        "  # part_acc0: f32[m0, n0]",
        "  for k0 in range(0, K, 128):",
        "    k0_end = min(k0 + 128, K)",
        "    for m in range(m0, m0_end):",
        "      for n in range(n0, n0_end, 8):",
    ]
    assert "        for k in range(k0, k0_end):  # unrolled 4 times" in lines
    assert "        if k0 + 128 < K:" in lines


def test_tiles_in_turns():
    program = scheduled("matmul", lanes=("n",), tile__m=2, tile__n=4, dealt="turns")
    lines = listing(program, layouts(program), {}, VectorUnit(16, frozenset())).splitlines()
    assert "for m, n in turns(range(0, M, 2), range(0, N, 4)):" in lines
    assert "# turns: threads take the tiles one by one in turn, last axis fastest" in lines


def test_pairs_of_bf16():
    program = scheduled("matmul", "bf16", lanes=("k",), tile__m=1, tile__n=1, tile__k=32, atom__dot0="bf16x2")
    assert body(program, 64).splitlines()[3:6] == [
        "    a0 = load(a, (m, k), vec=32)",
        "    b0 = load(b, (n, k), vec=32)",
        "    acc0 = bf16x2(a0, b0, acc0)",
    ]


def test_pairs_that_are_computed_take_turns_in_portions(monkeypatch):
    """More sums than registers hold take all their terms sixteen at a time, in the listing as in the machine code."""
    monkeypatch.setattr("tilewright.emit.listing_page.LONGEST", 1000)
    decisions = {"lanes": ("E", "s", "D"), "tile__g": 1, "tile__s": 16, "tile__t": 4}
    atoms = {"atom__dot0": "bf16x2", "atom__dot1": "bf16x2"}
    program = scheduled("attention", "bf16", {"causal": True, "window": None}, **decisions, **atoms)
    lines = [line.strip() for line in body(program, 64, D=64, E=64).splitlines() if "bf16x2(" in line]
    scores, sums = ([x for x in lines if ("transpose(" in x) is of_queries] for of_queries in (True, False))
    assert len(scores) == 32 * 4 and len(sums) == 2 * 64
    assert all("pairs(" in line for line in sums)
    made = [line.partition(" = ")[0] for line in sums]
    assert made[:16] == made[16:32] and len(set(made[:16])) == 16 and not set(made[:32]) & set(made[32:])


def test_products_of_one_operand_take_turns():
    """Each row meets both weights before the next row comes, in the listing as in the machine code."""
    packed = {f"pack__{name}": "pair" for name in ("x", "gate", "up")}
    atoms = {"atom__dot0": "bf16x2", "atom__dot1": "bf16x2"}
    program = scheduled("gate_up", "bf16", lanes=("n",), tile__m=2, tile__n=16, tile__k=2, **packed, **atoms)
    lines = body(program, 64).splitlines()
    assert [line.strip() for line in lines if "bf16x2(" in line] == [
        "acc0 = bf16x2((x2, x3), gate16, acc0)",
        "acc2 = bf16x2((x2, x3), up16, acc2)",
        "acc1 = bf16x2((x4, x5), gate16, acc1)",
        "acc3 = bf16x2((x4, x5), up16, acc3)",
    ]
    text = emit(program, layouts(program), {}, VectorUnit(64, frozenset({"avx512bf16"}))).text
    made = re.findall(r"= call .*@llvm\.x86\.avx512bf16\.dpbf16ps\.512\(.* %(v\d+), .* %(v\d+)\)", text)
    steps = [made[n : n + 4] for n in range(0, len(made), 4)]
    assert steps
    for (x0, gate), (x1, up), (x2, again), (x3, twice) in steps:
        assert (x0, x2, gate, up) == (x1, x3, again, twice)
        assert x0 != x2 and gate != up


def test_tiles_of_amx():
    design = {"pack.a": "tile", "pack.b": "pair", "tile.m": 16, "tile.n": 32, "tile.k": 32, "atom.dot0": "amx_bf16"}
    program = lower(OPERATORS["matmul"].kernel.trace("bf16"), Design.of({**design, "lanes": ("n",)}))
    lines = body(program, 64).splitlines()
    at = lines.index("  for k in range(0, K, 32):")
    assert lines[at + 1 : at + 6] == [
        "    a16 = load(a_packed, (m, k), tile=16x32)",
        "    b16 = load(b_packed, (n, k), tile=16x32)",
        "    acc0 = amx_bf16(a16, b16, acc0)",
        "    b17 = load(b_packed, (n + 16, k), tile=16x32)",
        "    acc1 = amx_bf16(a16, b17, acc1)",
    ]
    design |= {"pack.b": "quad", "tile.k": 64, "atom.dot0": "amx_int8"}
    program = lower(
        OPERATORS["matmul"].kernel.trace("i8", options={"activation": None}), Design.of({**design, "lanes": ("n",)})
    )
    lines = body(program, 64).splitlines()
    at = lines.index("  for k in range(0, K, 64):")
    assert lines[at + 1].endswith("load(a_packed, (m, k), tile=16x64)")
    assert "= amx_int8(" in lines[at + 3]


def test_parts_of_a_sum_are_two_phases():
    design = Design.of({"tile.n": 2, "tile.k": 32, "lanes": ("k", "n"), "part.k": 64})
    program = OPERATORS["matmul"].kernel.trace("f32", options={"activation": None})
    lines = body(lower(program, design), 64).splitlines()
    assert [line for line in lines if line.lstrip().startswith(("for", "barrier", "store"))] == [
        "for m, n, ks in share(range(0, M), range(0, N, 2), range(0, K, 64)):",
        "  for k in range(ks, ks_end, 32):",
        "  store(acc0_parts, (m - m, n - n), (acc0_part2, acc0_part3), vec=2)",
        "barrier(team)",
        "for m, n in share(range(0, M), range(0, N, 2)):",
        "  for ks in range(0, K, 64):",
        "  store(c, (m, n), (acc0, acc1), vec=2, mask=n)",
    ]


def test_the_listing_of_a_decode_step_reads_like_the_design():
    """matmul 1 x 4096 x 4096: a row of weights at a time, along the sum."""
    program = OPERATORS["matmul"].kernel.trace("f32")
    facts = Facts({"M": 1, "N": 4096, "K": 4096}, {"a": (1,), "b": (1,), "c": (1,)}, Machine.named("x86-avx512"))
    text = body(lower(program, default_design(program, facts)), 64)
    assert re.search(r"^    acc0 = fma\(a0, b0, acc0\)$", text, re.MULTILINE)
    assert re.search(r"^    b0 = load\(b, \(n, k\), vec=16\)$", text, re.MULTILINE)
    assert re.search(r"^  store\(c, \(m, n\), .*acc\d+.*, vec=\d+", text, re.MULTILINE)


# ------------------------------------------------------------------------------------------------ B3
def cached_globally(program: ir.Kernel) -> ir.Kernel:
    """Every load with the cache policy cg."""

    def change(stmt: ir.Stmt) -> ir.Stmt:
        if isinstance(stmt, ir.Let) and isinstance(stmt.expr, ir.Load):
            return replace(stmt, notes=ir.with_notes(stmt.notes, cache="cg"))
        return stmt

    return replace(program, body=structure.rewrite(program.body, change))


def test_B3_two_loads_of_one_become_one_load_of_two():
    scalar = Design.of({"tile.m": 1, "tile.n": 1, "tile.k": 2, "lanes": ()})
    vector = Vectorise("k").apply(scalar)
    assert isinstance(vector, Design)
    authored = OPERATORS["matmul"].kernel.trace("f32")
    before, after = (cached_globally(lower(authored, d)) for d in (scalar, vector))

    assert (
        body(before)
        == """\
for m, n in share(range(0, M), range(0, N)):
  acc0 = 0.0
  for k in range(0, K, 2):
    a0 = load(a, (m, k), cache=cg, vec=1)
    b0 = load(b, (n, k), cache=cg, vec=1)
    acc0 = fma(a0, b0, acc0)
    a1 = load(a, (m, k + 1), cache=cg, vec=1)
    b1 = load(b, (n, k + 1), cache=cg, vec=1)
    acc0 = fma(a1, b1, acc0)
  store(c, (m, n), acc0, vec=1)"""
    )
    assert (
        body(after)
        == """\
for m, n in share(range(0, M), range(0, N)):
  (acc0, acc1) = 0.0
  for k in range(0, K, 2):
    (a0, a1) = load(a, (m, k), cache=cg, vec=2)
    (b0, b1) = load(b, (n, k), cache=cg, vec=2)
    (acc0, acc1) = fma((a0, a1), (b0, b1), (acc0, acc1))
  acc2 = 0.0 + sum_lanes((acc0, acc1))
  store(c, (m, n), acc2, vec=1)"""
    )
    results = [executed(p, {"M": 3, "N": 5, "K": 8}, 16)["c"] for p in (before, after)]
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------ meaning
def executed(program: ir.Kernel, sizes: dict[str, int], vector_bytes: int) -> dict[str, Any]:
    """What the listing of `program` writes, and a check that the interpreter writes the same."""
    random = np.random.default_rng(0)
    shapes = {p.name: [sizes[d] if isinstance(d, str) else d for d in p.dims] for p in program.params if p.dims}
    kinds = {p.name: p.dtype.numpy for p in program.params}
    written = {s.ref.buffer for s in ir.walk(program.body) if isinstance(s, ir.Store)} & set(shapes)
    tensors = {
        n: np.full(shape, -1, kinds[n]) if n in written
        else random.integers(0, 4, shape).astype(kinds[n]) if kinds[n].kind == "i"
        else random.standard_normal(shape).astype(kinds[n])
        for n, shape in shapes.items()
    }  # fmt: skip
    scalars = {p.name: 0.25 for p in program.params if p.dims is None}
    ours, meant = ({n: x.copy() for n, x in tensors.items()} for _ in range(2))
    whole = {d: sizes[d] for d in program.dims if d not in structure.axes(program) and whole_axis(program, d)}
    with pytest.MonkeyPatch.context() as patch:  # in full: a shortened listing cannot be run
        patch.setattr("tilewright.emit.listing_page.LONGEST", 10**6)
        text = listing(program, layouts(program), whole, VectorUnit(vector_bytes, frozenset()))
    execute(text, ours, scalars, sizes)
    run(program, meant, scalars)
    for name in written:
        np.testing.assert_allclose(ours[name], meant[name], rtol=1e-5, atol=4e-6)
    emit(program, layouts(program), whole, VectorUnit(vector_bytes, frozenset()))  # what is listed can be emitted
    return ours


def whole_axis(program: ir.Kernel, dim: str) -> bool:
    return any(dim in let.type.axes for let in structure.lets(program).values())


ROWS = {"M": 5, "D": 32}
CASES = {
    "matmul, inner": ("matmul", {"M": 3, "N": 8, "K": 32}, {"tile.m": 1, "tile.n": 4, "tile.k": 16, "lanes": ("k",)}),
    "matmul, split": (
        "matmul",
        {"M": 3, "N": 8, "K": 64},
        {"tile.m": 1, "tile.n": 4, "tile.k": 32, "lanes": ("k",), "split.k": 4},
    ),
    "rmsnorm, split": (
        "rmsnorm", ROWS, {"tile.m": 1, "tile.d": 32, "tile.d1": 8, "lanes": ("d", "d1"), "split.d": 2}
    ),
    "softmax, kept": (
        "softmax", ROWS,
        {"tile.m": 1, "tile.d": 8, "tile.d1": 8, "tile.d2": 8, "lanes": ("d", "d1", "d2"), "keep.exp1": True},
    ),
    "matmul, outer": ("matmul", {"M": 6, "N": 24, "K": 7}, {"tile.m": 3, "tile.n": 8, "tile.k": 1, "lanes": ("n",)}),
    "matmul, drawn": (
        "matmul", {"M": 5, "N": 13, "K": 3}, {"tile.m": 2, "tile.n": 8, "lanes": ("n",), "dealt": "drawn"}
    ),
    "matmul, in turns": (
        "matmul", {"M": 5, "N": 13, "K": 3}, {"tile.m": 2, "tile.n": 8, "lanes": ("n",), "dealt": "turns"}
    ),
    "matmul, ragged": ("matmul", {"M": 5, "N": 13, "K": 3}, {"tile.m": 3, "tile.n": 8, "tile.k": 1, "lanes": ("n",)}),
    "matmul, packed": (
        "matmul",
        {"M": 5, "N": 20, "K": 48},
        {"tile.m": 2, "tile.n": 8, "tile.k": 1, "lanes": ("n",), "pack.a": "panel", "pack.b": "panel"},
    ),
    "matmul, blocked": (
        "matmul",
        {"M": 6, "N": 16, "K": 48},
        {"tile.m": 2, "tile.n": 8, "tile.k": 1, "lanes": ("n",), "pack.b": "panel", "block.m": 4, "block.n": 16,
         "block.k": 16, "order": ("n", "m"), "inner": ("n", "m"), "unroll.k": 4},
    ),
    "matmul, packed, along the sum": (
        "matmul",
        {"M": 4, "N": 8, "K": 32},
        {"tile.m": 2, "tile.n": 4, "tile.k": 8, "lanes": ("k",), "pack.b": "panel"},
    ),
    "gate_up": (
        "gate_up",
        {"M": 4, "N": 16, "K": 6},
        {"tile.m": 2, "tile.n": 8, "tile.k": 2, "lanes": ("n",)},
    ),
    "attention": (
        "attention",
        {"B": 2, "H": 1, "G": 2, "S": 3, "T": 8, "D": 8, "E": 16},
        {"tile.g": 2, "tile.s": 1, "tile.t": 4, "lanes": ("D", "E", "t")},
    ),
    "scale_add": ("scale_add", ROWS, {"tile.m": 1, "tile.d": 16, "lanes": ("d",)}),
    "embedding": ("embedding", {"N": 3, "V": 4, "D": 32}, {"tile.n": 1, "tile.d": 16, "lanes": ("d",)}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("vector_bytes", [16, 32])
def test_executing_the_listing_gives_the_meaning(case, vector_bytes):
    operator, sizes, decisions = CASES[case]
    dtypes: Any = {"ids": "i32", "table": "f32", "y": "f32"} if operator == "embedding" else "f32"
    executed(lower(OPERATORS[operator].kernel.trace(dtypes), Design.of(decisions)), sizes, vector_bytes)


@pytest.mark.parametrize("operator", ["rmsnorm", "add_rmsnorm", "layernorm", "softmax", "swiglu", "silu", "argmax"])
@pytest.mark.parametrize("name", ["x86-avx2", "x86-avx512"])
def test_default_designs_of_row_operators(operator, name):
    machine = Machine.named(name)
    dtypes: Any = {"x": "f32", "index": "i32"} if operator == "argmax" else "f32"
    program = OPERATORS[operator].kernel.trace(dtypes)
    sizes = {"M": 3, "D": 2 * 4 * machine.vector_bits // 32}
    unit = {p.name: (len(p.dims) - 1,) for p in program.params if p.dims}
    executed(lower(program, default_design(program, Facts(sizes, unit, machine))), sizes, machine.vector_bits // 8)


# ------------------------------------------------------------------------------------------------ the page
def test_long_statements_are_shortened_and_say_so():
    page = Page()
    with page.block("for k in range(0, K):"), page.statement():
        for n in range(LONGEST + 1):
            page.line(f"acc{n} = fma(a{n}, b0, acc{n})" if n % 2 else f"a{n} = load(a, (m + {n}, k), vec=1)")
    assert len(page.lines) == 12
    assert page.lines[9] == "  ... (51 more: 26 load, 25 fma)"
    assert page.lines[-1].startswith("  a60 = load")


def test_statements_at_the_limit_are_printed_in_full():
    page = Page()
    with page.statement():
        for n in range(LONGEST):
            page.line(f"x{n} = exp(y{n})")
    assert len(page.lines) == LONGEST


def test_names_of_registers_meet_no_axis_and_no_function():
    names = Names({"k0"})
    assert [names.new("k", 16) for _ in range(2)] == ["k1", "k2"]
    assert [names.new("exp0", 1) for _ in range(3)] == ["exp0", "exp1", "exp3"]  # exp2 is a function
    assert names.new("a5", 2) == "(a0, a1)"


def test_many_registers_in_a_row():
    assert several([f"acc{n}" for n in range(8)]) == "acc0 .. acc7"
    assert several(["a0", "a1"]) == "a0, a1"
    assert several(["a0", "a2", "a3", "a4", "a5"]) == "a0, a2, a3, a4, a5"
