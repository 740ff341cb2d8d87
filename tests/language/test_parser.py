"""`parse(show(p)) == p` on every program, and messages that say where text is not a program."""

from __future__ import annotations

import math

import pytest
import tile_programs as programs
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.errors import ParseError
from tilewright.language import ir
from tilewright.language.dtypes import DTYPES
from tilewright.language.parser import parse
from tilewright.language.printer import show

# Words of statements are allowed as names; the parser must not take one for the other.
NAMES = st.sampled_from(["x", "acc0", "store", "for", "copy", "full", "load", "role", "when_", "_t", "i1"])
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False), st.just(math.nan))
ATOMS = NAMES | NUMBERS
INDICES = NAMES | st.integers(0, 99)
REFS = st.builds(ir.Ref, NAMES, st.lists(INDICES, max_size=3).map(tuple))
TYPES = st.builds(ir.TileType, st.sampled_from(list(DTYPES.values())), st.lists(NAMES, max_size=3).map(tuple))
WORDS = st.text(max_size=6) | st.sampled_from(["wgmma", "a.b", "a.inf", "in", "true", "x..y", 'say "hi"\n'])
NOTE_ITEMS = WORDS | st.integers() | st.booleans()
NOTE_KEYS = st.sampled_from(["place", "atom", "deep.key"])
NOTES = st.dictionaries(NOTE_KEYS, NOTE_ITEMS | st.lists(NOTE_ITEMS, max_size=3).map(tuple), max_size=2).map(
    lambda notes: tuple(sorted(notes.items(), key=lambda item: item[0]))
)
BOUNDS = st.none() | NAMES | st.integers(0, 9)
AXES = st.builds(ir.Axis, NAMES, NAMES, st.none() | st.integers(1, 64), BOUNDS, BOUNDS, st.booleans())


def map_exprs():
    return st.sampled_from(sorted(ir.MAPS)).flatmap(
        lambda op: st.tuples(*[NAMES] * ir.MAPS[op]).map(lambda args: ir.Map(op, args))
    )


EXPRS = st.one_of(
    st.builds(ir.Full, ATOMS),
    st.builds(ir.Coord, NAMES),
    st.builds(ir.Load, REFS),
    map_exprs(),
    st.builds(ir.Reduce, st.sampled_from(ir.REDUCTIONS), NAMES, NAMES),
    st.builds(ir.Dot, NAMES, NAMES, NAMES),
    st.builds(ir.Permute, NAMES),
)
DIMS = st.lists(NAMES | st.integers(1, 9), max_size=3).map(tuple)
LEAVES = st.one_of(
    st.builds(ir.Let, NAMES, TYPES, EXPRS, NOTES),
    st.builds(ir.Assign, NAMES, NAMES),
    st.builds(ir.Store, REFS, NAMES, NOTES),
    st.builds(ir.Alloc, NAMES, st.sampled_from(list(DTYPES.values())), DIMS, NOTES),
    st.builds(ir.Copy, REFS, REFS, NOTES),
    st.builds(ir.Sync, NAMES, NAMES, NOTES),
)


def blocks(stmts):
    body = st.lists(stmts, max_size=3).map(tuple)
    loops = st.builds(ir.Loop, st.lists(AXES, min_size=1, max_size=2).map(tuple), body, st.booleans(), NOTES)
    whens = st.builds(ir.When, st.sampled_from(ir.CONDITIONS), NAMES, body)
    return st.one_of(loops, whens, st.builds(ir.Role, NAMES, body, NOTES))


STMTS = st.recursive(LEAVES, blocks, max_leaves=12)
PARAMS = st.builds(ir.Param, NAMES, st.sampled_from(list(DTYPES.values())), st.none() | DIMS)
KERNELS = st.builds(
    ir.Kernel, NAMES, st.lists(PARAMS, max_size=3).map(tuple), st.lists(STMTS, max_size=4).map(tuple), NOTES
)


@settings(deadline=None, max_examples=200)
@given(KERNELS)
def test_every_tree_survives_print_and_parse(kernel):
    text = show(kernel)
    assert parse(text) == kernel
    assert show(parse(text)) == text


@settings(deadline=None, max_examples=20)
@given(programs.random_programs(dtype="bf16"))
def test_random_traced_programs_survive(kernel):
    assert parse(show(kernel)) == kernel


@pytest.mark.parametrize("name", programs.EXAMPLES)
def test_examples_survive(name):
    kernel = programs.EXAMPLES[name]
    assert parse(show(kernel)) == kernel


def test_line_ends_and_comments_mean_nothing():
    kernel = parse(programs.SCHEDULED)
    commented = "# a kernel\n" + show(kernel).replace("{\n", "{ # opens\n")
    assert parse(commented) == kernel
    assert parse(show(kernel).replace("\n", " ")) == kernel


def test_numbers_keep_their_kind_and_value():
    text = "kernel k() { a = full 1 : f32[] b = full 1.0 : f32[] c = full -inf : f32[] d = full 1e-07 : f32[] }"
    values = [let.expr.value for let in parse(text).body]
    assert values == [1, 1.0, -math.inf, 1e-07]
    assert [type(v) for v in values] == [int, float, float, float]


def wrapped(stmt):
    return f"kernel k(x: f32[N]) {{\n  {stmt}\n}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: expected 'kernel', found the end of the text"),
        ("kernel k(x f32) {}", r"line 1, column 12: expected ':', found f32"),
        ("kernel k(x: f33) {}", r"line 1, column 13: 'f33' is not a dtype; use one of f64"),
        ("kernel k() {} }", "line 1, column 15: expected the end of the text"),
        ("kernel k() { ; }", "line 1, column 14: unexpected character ';'"),
        (wrapped("y = frob x : f32[N]"), "line 2, column 7: 'frob' is not an operator\n    y = frob"),
        (wrapped("y = load x[N : f32[N]"), "line 2, column 16: expected ',', found :"),
        (wrapped("y = reduce mean x over N : f32[]"), "'mean' is not a reduction; use one of sum, max, min"),
        (wrapped("when often(i) {}"), "line 2, column 8: 'often' is not a condition; use one of first"),
        (wrapped("frob x"), "line 2, column 3: 'frob' does not start a statement"),
        (wrapped("for i in N step 2.5 {}"), "line 2, column 19: expected an integer, found 2.5"),
        (wrapped("y = exp x : f32[N] @vec=(1 2)"), "line 2, column 30: expected ',', found 2"),
        (wrapped('sync b wait @scope="\\q"'), "is not a string"),
        ("kernel k() {", "column 13: expected a statement or '}', found the end of the text"),
    ],
)
def test_text_that_is_no_program(text, message):
    with pytest.raises(ParseError, match=message.replace("(", r"\(") if "\\" not in message else message):
        parse(text)
