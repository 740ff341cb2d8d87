"""Good programs break no rule; each rule has programs that break it, and only it."""

from __future__ import annotations

import re

import pytest
import tile_programs as programs
from hypothesis import given, settings

from tilewright.errors import VerifyError
from tilewright.language.parser import parse
from tilewright.language.verifier import RULES, check, verify


def broken(body, signature="x: f32[M, N], y: f32[M, N], p: i64[M], s: f32"):
    return verify(parse(f"kernel k({signature}) {{ {body} }}"))


@pytest.mark.parametrize("name", programs.EXAMPLES)
def test_traced_programs_are_good(name):
    assert verify(programs.EXAMPLES[name]) == []


@settings(deadline=None, max_examples=20)
@given(programs.random_programs(dtype="bf16"))
def test_random_programs_are_good(kernel):
    assert check(kernel) is kernel


def test_a_scheduled_program_is_good():
    assert verify(parse(programs.SCHEDULED)) == []


V = "v = load x[M, N] : f32[M, N] "
CASES = [
    # unique
    ("unique", V + V, "v is defined already"),
    ("unique", "for i in M, i in N { }", "i is defined already"),
    ("unique", "x = full 1.0 : f32[]", "x is defined already"),
    ("unique", "for i in M { for i in M { } }", "i is defined already"),
    # defined
    ("defined", "t = exp v : f32[M, N]", "no value v is in scope here"),
    ("defined", "for i in M { v = full 1.0 : f32[i] } store y[M, N] = v", "no value v is in scope"),
    ("defined", "v = load z[M] : f32[M]", "no tensor or buffer z is in scope"),
    ("defined", "v = full 1.0 : f32[i]", "no axis or dimension i is in scope"),
    ("defined", "v = full q : f32[]", "no value q is in scope"),
    ("defined", "v := w", "no value w is in scope"),
    # tile-axes
    ("tile-axes", "v = full 1.0 : f32[M, M]", "axis M twice"),
    ("tile-axes", "for each i in M { v = full 1.0 : f32[i] }", "i is a single position"),
    # types
    ("types", "v = load x[M, N] : f32[N, M]", r"the type is f32\[N, M\] but the value f32\[M, N\]"),
    ("types", "v = load x[M, N] : bf16[M, N]", "but the value f32"),
    ("types", "v = coord M : i32[M]", r"but the value i64\[M\]"),
    ("types", "v = full 1.5 : i64[]", "1.5 is not a value of i64"),
    ("types", "v = full s : i64[]", "s is f32, the type i64"),
    ("types", "v = full M : i32[]", "the size of M is i64"),
    ("types", V + "w = full v : f32[M]", "full repeats a scalar"),
    ("types", V + "w = exp v : f32[M]", "broadcasts its operands to other axes"),
    ("types", V + "w = lt v v : f32[M, N]", "lt of f32 is bool, not f32"),
    ("types", V + "w = not v : f32[M, N]", "not does not take f32"),
    ("types", V + "w = select v v v : f32[M, N]", "the condition of a select is bool"),
    ("types", V + "i = coord M : i64[M] w = add v i : f32[M, N]", "add mixes f32, i64"),
    ("types", "i = coord M : i64[M] w = exp i : i64[M]", "exp takes floats, not i64"),
    ("types", V + "h = cast v : bf16[M, N] w = add h h : bf16[M, N]", "add of bf16, which is a storage format"),
    ("types", V + "w = reduce sum v over K : f32[M, N]", "no axis K to reduce"),
    ("types", V + "w = reduce sum v over N : f32[N]", r"but the value f32\[M\]"),
    ("types", V + "w = dot v v over N : f32[M, M]", "both operands have an axis besides N"),
    ("types", V + "i = coord N : i64[N] w = dot v i over N : f32[M]", "dot takes two operands of one float dtype"),
    ("types", V + "w = permute v : f32[M]", "permute keeps the axes"),
    # refs
    ("refs", "v = load x[M] : f32[M]", "has 1 indices for the dimensions"),
    ("refs", "v = load x[N, 0] : f32[N]", "N is no range of dimension M"),
    ("refs", "v = load x[M, -1] : f32[M]", "position -1 is outside"),
    ("refs", V + "w = load p[v] : i64[M, N]", "index v is f32, not an integer"),
    ("refs", "for i in M { w = load p[j] : i64[j] }", "index j is no axis"),
    # stores
    ("stores", "v = full 1.0 : f32[N, M] store y[M, N] = v", r"v is f32\[N, M\], the place f32\[M, N\]"),
    ("stores", "v = full 1 : i64[M, N] store y[M, N] = v", "the place f32"),
    ("stores", "copy y[M, N] <- p[M]", "has other axes than"),
    ("stores", "copy p[M] <- x[M, 0]", "x is f32, p i64"),
    # assigns
    ("assigns", V + "w = full 1.0 : f32[] v := w", r"v is f32\[M, N\], w f32\[\]"),
    # races
    ("races", V + "for i in M parallel { v := v }", "v comes from outside and is updated by every iteration"),
    ("races", "for i in M, j in N parallel { v = full 1.0 : f32[i] store y[i, 0] = v }", "parallel axis j"),
    ("races", "for i in M step 8 { for each j in i parallel { copy y[i, N] <- x[j, N] } }", "parallel axis j"),
    # loops
    ("loops", "for i in Q { }", "over Q, which is no dimension"),
    ("loops", "for i in M step 0 { }", "has step 0"),
    ("loops", "for each i in M step 4 { }", "`each` has none"),
    ("loops", "for i in M to s { }", "bound s of axis i is not an integer scalar"),
    ("loops", "for i in M from p { }", "bound p of axis i"),
    # whens
    ("whens", "for i in M { } when first(M) { }", "M is no axis of a loop around this"),
    # allocs
    ("allocs", "alloc b: f32[Q]", "dimension Q is no dimension or axis"),
    ("allocs", "alloc b: f32[0]", "dimension 0 is not positive"),
    # notes
    ("notes", V + "w = exp v : f32[M, N] @atom=fma", "'atom' belongs on Dot"),
    ("notes", "for i in M @unrol=4 { }", "did you mean 'unroll'"),
    ("notes", "sync b frob", "frob is no action of a barrier"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "body", "message"), CASES)
def test_each_rule(rule, body, message):
    found = broken(body)
    assert rule in {v.rule for v in found}
    assert any(v.rule == rule and re.search(message, v.message) for v in found), found


def test_every_rule_has_a_case():
    assert {rule for rule, _, _ in CASES} == {rule.name for rule in RULES}
    assert all(rule.reason for rule in RULES)


@pytest.mark.parametrize(
    "body",
    [
        # One iteration of the parallel loop writes.
        "for i in M parallel { when first(i) { v = full 1.0 : f32[M, N] store y[M, N] = v } }",
        # Every iteration copies the same elements to the same place.
        "alloc b: f32[M, N] for i in M parallel { copy b[M, N] <- x[M, N] }",
        # A buffer of its own.
        "for i in M parallel { alloc b: f32[N] v = full 1.0 : f32[N] store b[N] = v }",
        # The machine joins the partial sums.
        "t = full 0.0 : f32[] for i in M parallel @how=atomic { one = full 1.0 : f32[] n = add t one : f32[] t := n }",
        # The place depends on the axis through an integer.
        "for each i in M parallel { at = load p[i] : i64[] v = full 1.0 : f32[N] store y[at, N] = v }",
        # A part of a part.
        "for i in M step 8 parallel { for j in i step 2 { v = full 1.0 : f32[j, N] store y[j, N] = v } }",
    ],
)
def test_no_race(body):
    assert broken(body) == []


def test_signature():
    assert broken("", "x: f32[M], x: f32[M]")[0].message == "two parameters are called x"
    assert broken("", "M: f32[M]")[0].message == "M is a parameter and a dimension"


def test_check_lists_every_violation_with_its_reason():
    kernel = parse("kernel k(x: f32[N]) { store x[N] = v w = full 1.5 : i64[] }")
    with pytest.raises(
        VerifyError, match=r"(?s)breaks 2 rule.*\[defined\] store x\[N\] = v.*what ran before.*\[types\]"
    ):
        check(kernel)
