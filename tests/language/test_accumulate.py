"""What a body reads once, and may compute where it is read."""

from __future__ import annotations

from tilewright.language import ir
from tilewright.language.accumulate import fused_dots, read_once, side_by_side, together
from tilewright.language.parser import parse

HEAD = "kernel k(x: f32[M, N], y: f32[M, N], w: f32[N], out: f32[M, N]) {\n  for m in M, n in N parallel {\n"


def late(*lines):
    """What can wait in a body of these lines."""
    program = parse(HEAD + "\n".join(lines) + "\n  }\n}\n")
    return read_once(program.body[0].body)


X = "x0 = load x[m, n] : f32[m, n]"


def test_a_chain_that_is_stored_waits_whole():
    assert late(X, "a = neg x0 : f32[m, n]", "b = exp a : f32[m, n]", "store out[m, n] = b") == {"x0", "a", "b"}


def test_what_is_read_twice_does_not_wait():
    found = late(X, "a = exp x0 : f32[m, n]", "b = mul a a : f32[m, n]", "store out[m, n] = b")
    assert "a" not in found and {"x0", "b"} <= found


def test_a_load_from_elsewhere_is_made_before_results_are_written():
    """The result may lie where an input lies: what is read at another place of it must be read first."""
    found = late("x0 = load x[n, m] : f32[n, m]", "a = permute x0 : f32[m, n]", "store out[m, n] = a")
    assert "x0" not in found
    shifted = late("x0 = load x[m, 0] : f32[m]", "y0 = load y[m, n] : f32[m, n]", "a = mul x0 y0 : f32[m, n]",
                   "store out[m, n] = a")  # fmt: skip
    assert "a" not in shifted


def test_a_load_of_other_dimensions_cannot_lie_where_the_result_does():
    assert "a" in late(X, "w0 = load w[n] : f32[n]", "a = mul x0 w0 : f32[m, n]", "store out[m, n] = a")


def test_nothing_waits_over_a_store():
    found = late(X, "a = exp x0 : f32[m, n]", "store out[m, n] = a", "y0 = load y[m, n] : f32[m, n]",
                 "b = add y0 y0 : f32[m, n]", "store out[m, n] = b")  # fmt: skip
    assert "y0" not in found and "a" in found


TWO = ("kernel k(x: f32[M, K], u: f32[K, N], w: f32[K, N], out: f32[M, N]) {\n  for m in M, n in N parallel {\n"
       "    a = full 0.0 : f32[m, n]\n    b = full 0.0 : f32[m, n]\n    for k in K {\n%s\n    }\n"
       "    c = mul a b : f32[m, n]\n    store out[m, n] = c\n  }\n}\n")  # fmt: skip
X0, U0, W0 = "x0 = load x[m, k] : f32[m, k]", "u0 = load u[k, n] : f32[k, n]", "w0 = load w[k, n] : f32[k, n]"


def loop(*lines):
    """The body of a loop that sums into `a` and `b`."""
    found = next(s for s in parse(TWO % "\n".join(lines)).body[0].body if isinstance(s, ir.Loop))
    return found.body


def groups(body):
    body = together(body)
    return [[add.name for add in group] for group in side_by_side(body, fused_dots(body)).values()]


def sums(first, second, into=("a", "b")):
    """Two products into two variables, the first whole before the second begins."""
    d, e = (f"{name} = dot {pair} over k : f32[m, n]" for name, pair in (("d", first), ("e", second)))
    s, t = (f"{name} = add {to} {dot} : f32[m, n]" for name, to, dot in (("s", into[0], "d"), ("t", into[1], "e")))
    return X0, U0, d, s, f"{into[0]} := s", W0, e, t, f"{into[1]} := t"


def test_products_of_one_operand_are_made_side_by_side():
    body = loop(*sums("x0 u0", "x0 w0"))
    assert [s.name for s in together(body)] == ["x0", "u0", "d", "w0", "e", "s", "a", "t", "b"]
    assert groups(body) == [["s", "t"]]


def test_products_without_a_common_operand_stay_where_they_are():
    lines = sums("x0 u0", "x1 w0")
    body = loop(*lines[:5], "x1 = load x[m, k] : f32[m, k]", *lines[5:])
    assert together(body) is body
    assert groups(body) == [["s"], ["t"]]


def test_two_sums_into_one_variable_are_no_group():
    """The second adds to what the first assigned."""
    assert groups(loop(*sums("x0 u0", "x0 w0", into=("a", "a")))) == [["s"], ["t"]]


def test_what_reads_a_variable_after_its_sum_stays_behind_it():
    lines = sums("x0 u0", "x0 u0")
    late = loop(*lines[:5], "r = neg a : f32[m, n]", *lines[6:])
    order = [s.name for s in together(late)]
    assert order.index("r") > order.index("a")


def test_a_product_of_what_the_first_sum_made_is_no_part_of_its_group():
    """Its operand is computed from the first sum, after it."""
    made = "v = reduce sum a over m : f32[n]", "w0 = load w[k, n] : f32[k, n]", "y = mul w0 v : f32[k, n]"
    d, s = "d = dot x0 u0 over k : f32[m, n]", "s = add a d : f32[m, n]"
    e, t = "e = dot x0 y over k : f32[m, n]", "t = add b e : f32[m, n]"
    body = loop(X0, U0, d, s, "a := s", *made, e, t, "b := t")
    order = [stmt.name for stmt in together(body)]
    assert order.index("a") < order.index("v") < order.index("e")
    assert groups(body) == [["s"], ["t"]]
