"""What a program moves and computes, whatever its design."""

from __future__ import annotations

from tilewright import operators
from tilewright.design.cost.work import bytes_of


def test_halves_of_a_head_are_read_and_written_once_each():
    kernel = operators.rope.kernel.trace(dict.fromkeys(("x", "cos", "sin", "y"), "bf16"))
    b, s, h, r = 2, 32, 4, 64
    heads, angles = 2 * r * b * s * h, 2 * r * s  # elements of x or y; of cos or sin, which all of a batch share
    moved = bytes_of(kernel, {"B": b, "S": s, "H": h, "R": r, "P": s})
    assert moved == 2 * (2 * heads + 2 * angles)


def test_an_operand_that_is_added_to_itself_counts_once():
    kernel = operators.silu.kernel.trace({"x": "f32", "y": "f32"})
    (m, n) = (3, 70)
    assert bytes_of(kernel, dict(zip(kernel.dims, (m, n), strict=True))) == 2 * m * n * 4
