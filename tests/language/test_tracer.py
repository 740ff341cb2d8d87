"""What a trace emits: names, order, shared expressions, and where the author wrote each statement."""

from __future__ import annotations

import inspect

import tile_programs as programs

from tilewright.language import Tensor, coord, each, exp, ir, kernel, parallel, size, tiles, zeros
from tilewright.language.printer import show


def lines_of(program, **kwargs):
    """The statements of a traced program, without indentation."""
    return [line.strip() for line in show(program.trace(**kwargs)).splitlines()[1:-1]]


def test_the_same_program_traces_to_the_same_text():
    again = kernel(programs.attention.function)
    assert again.trace("f32") is not programs.attention.trace("f32")
    assert show(again.trace("f32")) == show(programs.attention.trace("f32"))


def test_axes_are_called_after_their_dimensions():
    @kernel
    def program(b: Tensor["B", "N"], c: Tensor["B", "N"], d: Tensor["N"]):
        for i, j in parallel(each("B"), "N"):
            c[i, j] = b[i, j]
        for j in tiles("N"):
            d[j] = 0

    loops = [s for s in program.trace().body if isinstance(s, ir.Loop)]
    # b is a parameter, and n was the axis of the first loop.
    assert [axis.name for loop in loops for axis in loop.axes] == ["ib", "n", "n1"]


def test_values_are_called_after_what_they_are():
    @kernel
    def program(x: Tensor["N"], y: Tensor["N"]):
        y[:] = exp(x[:] + 1.0) + exp(x[:])

    assert lines_of(program, dtypes="bf16") == [
        "x0 = load x[N] : bf16[N]",
        "x_0 = cast x0 : f32[N]",
        "c0 = full 1.0 : f32[]",
        "add0 = add x_0 c0 : f32[N]",
        "exp0 = exp add0 : f32[N]",
        "x1 = load x[N] : bf16[N]",
        "x_1 = cast x1 : f32[N]",
        "exp1 = exp x_1 : f32[N]",
        "add1 = add exp0 exp1 : f32[N]",
        "store y[N] = add1",
    ]


def test_equal_pure_expressions_are_emitted_once():
    @kernel
    def program(x: Tensor["N"], y: Tensor["N"], z: Tensor["N"]):
        v = x[:]
        y[:] = v * 2.0 + v * 2.0
        for n in tiles("N"):
            # The constant is in scope here, the position is not known outside.
            z[n] = x[n] * 2.0 + coord(n).to("f32") + coord(n).to("f32")

    text = "\n".join(lines_of(program))
    assert text.count("full 2.0") == 1
    assert text.count("mul x0 c0") == 1
    assert text.count("coord n") == 1


def test_what_reads_a_carried_tile_is_emitted_again():
    @kernel
    def program(x: Tensor["N"], y: Tensor["N"]):
        acc = zeros("N")
        before = exp(acc)
        acc += x[:]
        y[:] = exp(acc) + before

    assert sum("exp acc0" in line for line in lines_of(program)) == 2


def test_zero_and_minus_zero_are_not_one_constant():
    @kernel
    def program(x: Tensor["N"], y: Tensor["N"]):
        y[:] = (x[:] + 0.0) * -0.0

    text = "\n".join(lines_of(program))
    assert "full 0.0" in text
    assert "full -0.0" in text


def test_a_loop_over_the_whole_dimension_has_no_bounds():
    @kernel
    def program(x: Tensor["N", "M"], y: Tensor["N"]):
        for n in tiles("N", start=0, stop=size("N")):
            for _ in tiles("M", stop=size("N")):
                pass  # a loop without statements disappears
            y[n] = 0

    (loop,) = [s for s in program.trace().body if isinstance(s, ir.Loop)]
    assert (loop.axes[0].start, loop.axes[0].stop) == (None, None)
    assert not any(isinstance(s, ir.Loop) for s in loop.body)


def test_bounds_are_numbers_or_values():
    @kernel
    def program(x: Tensor["N"], y: Tensor["N"], length: Tensor["L"].of("i32")):
        for n in parallel("N", start=2, stop=length[0]):
            y[n] = x[n]

    loop = program.trace().body[-1]
    assert (loop.axes[0].start, loop.axes[0].stop) == (2, "length0")


def test_lines_point_at_the_author():
    @kernel
    def program(x: Tensor["N"], y: Tensor["N"]):
        for n in tiles("N"):
            v = x[n]
            y[n] = v

    source, first = inspect.getsourcelines(program.function)
    at = {name: line - first for name, file, line in program.trace().lines if file == __file__}
    assert at == {"n": 2, "x0": 3, "y[n]": 4}
    assert "for n in" in source[2]
