"""The semantic hash: blind to names that do not matter, and to nothing else."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import traced

from tilewright import operators
from tilewright.design.book.semantics import semantics
from tilewright.language import Tensor, dot, f32, ir, kernel, parallel, structure, tiles, zeros
from tilewright.language.parser import parse
from tilewright.language.printer import show

NAMES = sorted(operators.OPERATORS)


@kernel
def product(a: Tensor["M", "K"], b: Tensor["N", "K"], c: Tensor["M", "N"]):
    for i, j in parallel("M", "N"):
        acc = zeros(i, j, dtype=f32)
        for k in tiles("K"):
            acc += dot(a[i, k], b[j, k].T)
        c[i, j] = acc


@kernel
def same(a: Tensor["M", "K"], b: Tensor["N", "K"], c: Tensor["M", "N"]):
    for row, column in parallel("M", "N"):
        total = zeros(row, column, dtype=f32)
        for depth in tiles("K"):
            left, right = a[row, depth], b[column, depth]
            total += dot(left, right.T)
        c[row, column] = total


@kernel
def doubled(a: Tensor["M", "K"], b: Tensor["N", "K"], c: Tensor["M", "N"]):
    for i, j in parallel("M", "N"):
        acc = zeros(i, j, dtype=f32)
        for k in tiles("K"):
            acc += dot(a[i, k], b[j, k].T)
        c[i, j] = acc * 2.0


def test_an_authors_names_and_the_operators_do_not_count():
    one, other, three = (semantics(k.trace("f32")) for k in (product, same, doubled))
    assert one == other == semantics(operators.matmul.kernel.trace("f32"))
    assert one != three


def test_operators_dtypes_and_options_are_told_apart():
    programs = {(n, e, full): traced(n, e, full) for n in NAMES for e in ("f32", "bf16") for full in (False, True)}
    texts = {show(p) for p in programs.values()}
    assert len({semantics(p) for p in programs.values()}) == len(texts)
    activations = [traced("matmul", activation=a) for a in (None, "silu", "gelu", "relu")]
    assert len({semantics(p) for p in activations}) == 4


def defined(program: ir.Kernel) -> list[str]:
    return [*structure.axes(program), *structure.lets(program)]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), st.booleans(), st.randoms(use_true_random=False))
def test_renaming_what_a_program_defines_changes_nothing(name: str, full: bool, rng: random.Random):
    program = traced(name, full=full)
    numbers = rng.sample(range(1000), len(defined(program)))
    new = {old: f"renamed{n}" for old, n in zip(defined(program), numbers, strict=True)}
    text = re.sub(r"[A-Za-z_]\w*", lambda word: new.get(word[0], word[0]), show(program))
    assert "renamed" in text
    assert semantics(parse(text)) == semantics(program)


def edits(program: ir.Kernel) -> list[ir.Kernel]:
    """Programs that differ from `program` in one thing that matters."""
    found = [replace(program, params=(replace(program.params[0], name="other"), *program.params[1:]))]

    def changed(old: ir.Stmt, new: ir.Stmt) -> None:
        body = structure.rewrite(program.body, lambda s: new if s is old else s)
        found.append(replace(program, body=body))

    for stmt in ir.walk(program.body):
        match stmt:
            case ir.Let(expr=ir.Map("add", args)):
                changed(stmt, replace(stmt, expr=ir.Map("sub", args)))
            case ir.Let(expr=ir.Map("mul", (a, b))) if a != b:
                changed(stmt, replace(stmt, expr=ir.Map("mul", (b, a))))
            case ir.Let(expr=ir.Full(float())):
                changed(stmt, replace(stmt, expr=ir.Full(12345.0)))
            case ir.Let(expr=ir.Reduce("sum", arg, axis)):
                changed(stmt, replace(stmt, expr=ir.Reduce("max", arg, axis)))
            case ir.Let(expr=ir.Dot(a, b, axis)):
                changed(stmt, replace(stmt, expr=ir.Dot(b, a, axis)))
            case ir.Store() if len(found) < 50:
                changed(stmt, replace(stmt, value="acc0" if stmt.value != "acc0" else "dot0"))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_any_change_of_meaning_changes_the_hash(name: str):
    program = traced(name, full=True)
    found = edits(program)
    assert len(found) > 1
    assert len({semantics(p) for p in [program, *found]}) == len({show(p) for p in [program, *found]})
    assert semantics(program) not in {semantics(p) for p in found}
