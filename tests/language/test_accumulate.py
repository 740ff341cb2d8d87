"""What a body reads once, and may compute where it is read."""

from __future__ import annotations

from tilewright.language.accumulate import read_once
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
