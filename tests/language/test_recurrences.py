"""What loops carry, told from their statements, and states of two parts joined to that of the whole."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tilewright.language import ir
from tilewright.language.interpreter import run
from tilewright.language.parser import parse
from tilewright.language.recurrences import Namer, carried, joined
from tilewright.language.structure import names
from tilewright.language.verifier import check
from tilewright.operators import OPERATORS
from tilewright.runtime.compiled import dtypes_of

SOFTMAX = """kernel k(x: f32[M, N], y: f32[M], z: f32[M]) {
  for m in M parallel {
    top = full FIRST : f32[m]
    total = full START : f32[m]
    for n in N {
      v = load x[m, n] : f32[m, n]
      here = reduce max v over n : f32[m]
      new = max top here : f32[m]
      gap = sub top new : f32[m]
      fade = EXP gap : f32[m]
      low = sub v new : f32[m, n]
      p = EXP low : f32[m, n]
      BODY
      top := new
    }
    store y[m] = top
    store z[m] = total
  }
}"""
PLAIN = "s = reduce sum p over n : f32[m]  a = mul total fade : f32[m]  b = add a s : f32[m]  total := b"


def program(body=PLAIN, exp="exp", first="-1e30", start="0.0"):
    text = SOFTMAX.replace("BODY", body).replace("EXP", exp).replace("FIRST", first).replace("START", start)
    return check(parse(text))


def loop_of(kernel):
    """(the serial loop, the values before it) of a program of one nest."""
    (nest,) = kernel.body
    at = next(n for n, s in enumerate(nest.body) if isinstance(s, ir.Loop))
    return nest.body[at], {s.name: s for s in nest.body[:at] if isinstance(s, ir.Let)}


def kinds(kernel):
    found = carried(*loop_of(kernel))
    return found if isinstance(found, str) else [(c.name, c.kind, c.extreme) for c in found]


@pytest.mark.parametrize("exp", ["exp", "exp2"])
def test_an_online_softmax_is_an_extreme_and_a_sum_that_fades(exp):
    assert kinds(program(exp=exp)) == [("top", "max", ""), ("total", "faded", "top")]


@pytest.mark.parametrize(
    "body",
    [
        "a = mul fade total : f32[m]  s = reduce sum p over n : f32[m]  b = add s a : f32[m]  total := b",
        "a = mul total fade : f32[m]  total := a  s = reduce sum p over n : f32[m]  b = add total s : f32[m]  "
        "total := b",
        "w = mul p v : f32[m, n]  s = reduce sum w over n : f32[m]  a = mul total fade : f32[m]  b = add a s : f32[m]  "
        "total := b",
    ],
)
def test_the_order_and_the_way_of_writing_do_not_matter(body):
    assert kinds(program(body))[1] == ("total", "faded", "top")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"body": "s = reduce sum p over n : f32[m]  b = add total s : f32[m]  total := b"}, "total is neither"),
        ({"body": PLAIN.replace("mul total fade", "mul total gap")}, "total is neither"),
        ({"body": PLAIN.replace("sum p over", "max p over")}, "total is neither"),
        ({"body": PLAIN.replace("sum p over", "sum low over")}, "total is neither"),
        ({"first": "-inf"}, "top does not begin with a finite number"),
        ({"start": "1.0"}, "total does not begin with 0"),
    ],
)
def test_what_cannot_be_joined_says_why(change, why):
    found = kinds(program(**change))
    assert isinstance(found, str) and why in found


def test_the_square_of_what_fades_fades_twice():
    body = "w = mul p p : f32[m, n]  s = reduce sum w over n : f32[m]  a = mul total fade : f32[m]  "
    assert "total is neither" in kinds(program(body + "b = add a s : f32[m]  total := b"))


def test_states_that_are_read_or_stored_inside_cannot_be_joined():
    kernel = program()
    loop, before = loop_of(kernel)
    stored = replace(loop, body=(*loop.body, ir.Store(ir.Ref("y", ("m",)), "top")))
    assert carried(stored, before) == "it stores what its iterations compute"
    bounded = replace(loop, axes=(replace(loop.axes[0], stop="total"),))
    assert carried(bounded, before) == "total is read outside the loop that carries it"
    assert "carries no value" in carried(replace(loop, body=loop.body[:1]), before)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("attention", ["max", "faded", "faded"]),
        ("paged_attention", ["max", "faded", "faded"]),
        ("gate_up", ["sum", "sum"]),
        ("softmax", ["max"]),
    ],
)
def test_operators_carry(name, found):
    kernel = OPERATORS[name].kernel.trace(dtypes_of(OPERATORS[name].kernel, "bf16", ()))
    assert [c.kind for c in carried(*loop_of(kernel))] == found


def test_argmax_is_not_told():
    kernel = OPERATORS["argmax"].kernel.trace(dtypes_of(OPERATORS["argmax"].kernel, "bf16", ()))
    assert isinstance(carried(*loop_of(kernel)), str)


def in_parts(kernel, points):
    """The program with its loop cut in parts that are joined in order."""
    (nest,) = kernel.body
    loop, before = loop_of(kernel)
    states = carried(loop, before)
    new = Namer(names(kernel))
    own = {s.name: new(f"{s.name}_own") for s in states}
    from tilewright.lower.gpu.rename import renamed

    outer = ir.Axis("part", loop.axes[0].over, points)
    inner = replace(loop, axes=(replace(loop.axes[0], over="part"),), body=renamed(loop.body, own))
    begin = [replace(before[n], name=o) for n, o in own.items()]
    cut = ir.Loop((outer,), (*begin, inner, *joined(states, own, new)))
    return replace(kernel, body=(replace(nest, body=tuple(cut if s is loop else s for s in nest.body)),))


@pytest.mark.parametrize("points", [1, 5, 16, 100])
@pytest.mark.parametrize("exp", ["exp", "exp2"])
@pytest.mark.parametrize("size", [0, 1, 37])
def test_parts_join_to_the_whole(size, exp, points):
    kernel = program(exp=exp)
    cut = check(in_parts(kernel, points))
    x = np.random.default_rng(size).standard_normal((3, size)).astype(np.float32) * 30
    if size:
        x[1] = -np.inf  # nothing counts
        x[2, : size // 2] = -np.inf
    results = []
    for program_ in (kernel, cut):
        y, z = np.full(3, np.nan, np.float32), np.full(3, np.nan, np.float32)
        run(program_, {"x": x, "y": y, "z": z}, steps=4)
        results.append((y, z))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-5)
    assert all(math.isfinite(v) for v in results[1][1])
