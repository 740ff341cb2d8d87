"""Each mistake of an author gives a typed error that names the fix and points at the author's line."""

from __future__ import annotations

import math
import traceback
from pathlib import Path

import pytest

from tilewright.errors import CarriedTypeError, DTypeError, LanguageError, RaceError, ShapeError, UndefinedDimError
from tilewright.language import (
    Scalar,
    Tensor,
    bf16,
    coord,
    dot,
    each,
    exp,
    f32,
    full,
    i32,
    i64,
    kernel,
    maximum,
    parallel,
    tiles,
    where,
    whole,
    zeros,
)


def traced(function):
    """Trace `function` as a kernel over tensors x[M, N], v[N], y[M, N], integers p[M] and a scalar s."""

    @kernel
    def program(
        x: Tensor["M", "N"],
        v: Tensor["N"],
        y: Tensor["M", "N"],
        z: Tensor["M"],
        p: Tensor["M"].of("i64"),
        s: Scalar["f32"],
    ):
        function(x, v, y, z, p, s)

    return program.trace("f32")


MISTAKES = []


def mistake(error, message):
    """Register a kernel body whose line marked `# here` is the mistake."""

    def register(function):
        MISTAKES.append(pytest.param(function, error, message, id=function.__name__))
        return function

    return register


# ------------------------------------------------------------------------------------------- dimensions


@mistake(UndefinedDimError, "no tensor has a dimension 'Q'; the kernel's dimensions are M, N")
def loop_over_an_unknown_dim(x, v, y, z, p, s):
    for _ in parallel("Q"):  # here
        pass


@mistake(UndefinedDimError, "no tensor has a dimension 'Q'")
def whole_of_an_unknown_dim(x, v, y, z, p, s):
    whole("Q")  # here


@mistake(ShapeError, "a loop runs over a dimension by name, not over 4")
def loop_over_a_number(x, v, y, z, p, s):
    for _ in tiles(4):  # here
        pass


@mistake(LanguageError, "a loop needs a dimension to run over")
def loop_over_nothing(x, v, y, z, p, s):
    parallel()  # here


@mistake(ShapeError, "start= and stop= bound a loop over one dimension; nest the loops")
def bounds_on_two_dims(x, v, y, z, p, s):
    parallel("M", "N", stop=4)  # here


@mistake(ShapeError, r"start= and stop= take an integer or an integer scalar, not a i64 tile with axes \[M\]; reduce")
def bound_that_is_a_tile(x, v, y, z, p, s):
    tiles("N", stop=coord("M"))  # here


# ---------------------------------------------------------------------------------------------- indices


@mistake(ShapeError, r"x has dimensions \[M, N\] but 1 indices; index every dimension, with :")
def too_few_indices(x, v, y, z, p, s):
    x[0]  # here


@mistake(ShapeError, "axis n runs over N but indexes dimension M of x; use an axis over M, or coord")
def axis_of_another_dim(x, v, y, z, p, s):
    for _, j in parallel("M", "N"):
        x[j, 0]  # here


@mistake(ShapeError, "position -1 is outside dimension M of x; count from 0")
def negative_position(x, v, y, z, p, s):
    x[-1, :]  # here


@mistake(ShapeError, "a slice of x is `:` on a named dimension; bound a loop")
def slice_of_a_part(x, v, y, z, p, s):
    x[0:4, :]  # here


@mistake(ShapeError, "1.5 cannot index v; use an axis, :, a position or an integer tile")
def float_index(x, v, y, z, p, s):
    v[1.5]  # here


@mistake(DTypeError, "an index of v is f32; indices are integers, convert with .to")
def float_tile_index(x, v, y, z, p, s):
    v[z[0]]  # here


@mistake(ShapeError, "axis M indexes .* twice; use two axes, or coord")
def one_axis_twice(x, v, y, z, p, s):
    @kernel
    def square(a: Tensor["M", "M"], b: Tensor["M"]):
        b["M"] = a["M", "M"]  # here

    square.trace()


@mistake(ShapeError, "axis m over M is used outside its loop; use it inside")
def axis_outside_its_loop(x, v, y, z, p, s):
    for i in parallel("M"):
        z[i] = 0
    zeros(i)  # here


@mistake(ShapeError, "m is a single position")
def point_as_an_axis(x, v, y, z, p, s):
    for b in parallel(each("M")):
        zeros(b)  # here


@mistake(ShapeError, "x is a tensor; load a tile of it first, as in x\\[m, n\\]")
def tensor_in_arithmetic(x, v, y, z, p, s):
    x + 1  # here


@mistake(ShapeError, "v0 is a tile already; only tensors are indexed")
def index_of_a_tile(x, v, y, z, p, s):
    v[:][0]  # here


# --------------------------------------------------------------------------------------------- elements


@mistake(DTypeError, "add mixes f32, i64; convert one of them with .to")
def int_plus_float(x, v, y, z, p, s):
    z[:] + p[:]  # here


@mistake(DTypeError, "add needs floats but was given i64; convert with .to")
def int_plus_python_float(x, v, y, z, p, s):
    p[:] + 0.5  # here


@mistake(DTypeError, "exp needs floats but was given i64")
def exp_of_ints(x, v, y, z, p, s):
    exp(p[:])  # here


@mistake(DTypeError, "/ divides floats; use // for integers")
def true_division_of_ints(x, v, y, z, p, s):
    p[:] / 2  # here


@mistake(DTypeError, "// takes integers; convert with .to\\(i64\\), or use / for floats")
def floor_division_of_floats(x, v, y, z, p, s):
    z[:] // 2  # here


@mistake(DTypeError, "add does not take bool; use where")
def bool_in_arithmetic(x, v, y, z, p, s):
    (z[:] > 0) + 1  # here


@mistake(DTypeError, "and does not take f32; compare first")
def logic_on_floats(x, v, y, z, p, s):
    z[:] & z[:]  # here


@mistake(DTypeError, "where takes a bool condition, not f32")
def where_without_a_condition(x, v, y, z, p, s):
    where(z[:], 1.0, 0.0)  # here


@mistake(DTypeError, "unknown dtype 'float7'; Tilewright knows f64")
def unknown_dtype(x, v, y, z, p, s):
    z[:].to("float7")  # here


@mistake(DTypeError, "max of Python numbers alone; compute it in Python")
def only_numbers(x, v, y, z, p, s):
    maximum(1, 2)  # here


@mistake(LanguageError, "str is not a tile; index a tensor, or use a number")
def word_in_arithmetic(x, v, y, z, p, s):
    z[:] + "one"  # here


@mistake(LanguageError, "a tile has no truth value while the kernel is traced; use where")
def python_if(x, v, y, z, p, s):
    if z[0] > 0:  # here
        z[0] = 1


@mistake(LanguageError, "a tile cannot be iterated; loop with")
def python_iteration(x, v, y, z, p, s):
    list(z[:])  # here


# ---------------------------------------------------------------------------------- dots and reductions


@mistake(ShapeError, r"dot sums over the axis that ends its left .* not \[M, N\] x \[M, N\]; use .T")
def dot_of_the_wrong_axes(x, v, y, z, p, s):
    dot(x[:, :], x[:, :])  # here


@mistake(ShapeError, r"both operands of dot have an axis besides N; visit it with each")
def dot_with_a_batch(x, v, y, z, p, s):
    dot(x[:, :], x[:, :].T)  # here


@mistake(DTypeError, "dot multiplies float or i8 tiles, not i64; convert")
def dot_of_ints(x, v, y, z, p, s):
    dot(p[:], p[:])  # here


@mistake(ShapeError, r"\.sum over N, but the tile has axes \[M\]; name one of them")
def sum_over_a_missing_axis(x, v, y, z, p, s):
    z[:].sum("N")  # here


@mistake(ShapeError, r"\.T swaps the last two axes, but this tile is f32\[M\]")
def transpose_of_a_row(x, v, y, z, p, s):
    _ = z[:].T  # here


# ---------------------------------------------------------------------------------------- carried tiles


@mistake(CarriedTypeError, r"acc0 is carried as f32\[m\] but its new value is f32\[m, n\]; reduce it, or carry it as")
def carried_shape_changes(x, v, y, z, p, s):
    for i in parallel("M"):
        acc = zeros(i)
        for j in tiles("N"):
            acc += x[i, j]  # here


@mistake(CarriedTypeError, r"acc0 is carried as bf16\[m\] but its new value is f32\[m\]; convert with .to\(bf16\), or")
def carried_dtype_changes(x, v, y, z, p, s):
    for i in parallel("M"):
        acc = zeros(i, dtype=bf16)
        for j in tiles("N"):
            acc += x[i, j].sum(j)  # here


@mistake(LanguageError, r"add0 was defined inside the loop over N and is used after it; carry it instead: .*\.update")
def rebinding_in_a_loop(x, v, y, z, p, s):
    for i in parallel("M"):
        acc = zeros(i)
        for j in tiles("N"):
            acc = acc + x[i, j].sum(j)
        z[i] = acc  # here


@mistake(LanguageError, "v0 is not carried; make it with zeros")
def update_of_a_plain_tile(x, v, y, z, p, s):
    t = v[:]
    t.update(0)  # here


@mistake(RaceError, r"iterations of parallel\(m\) all update acc0; make it inside that loop")
def carried_through_a_parallel_loop(x, v, y, z, p, s):
    acc = full(value=-math.inf)
    for i in parallel("M"):
        acc.update(maximum(acc, z[i].max(i)))  # here


@mistake(ShapeError, r"full takes a number or a scalar, not a tile with axes \[N\]")
def full_of_a_tile(x, v, y, z, p, s):
    full("M", value=v[:])  # here


@mistake(DTypeError, "0.5 is not a value of i32; use a float dtype")
def full_of_a_fraction(x, v, y, z, p, s):
    full("M", value=0.5, dtype=i32)  # here


@mistake(DTypeError, "inf is not a value of i32; use a float dtype")
def full_of_infinity(x, v, y, z, p, s):
    full("M", value=math.inf, dtype=i32)  # here


@mistake(DTypeError, r"2147483648 does not fit i32; convert the tile with .to\(i64\), or use a smaller number")
def full_beyond_its_type(x, v, y, z, p, s):
    full("M", value=2**31, dtype=i32)  # here


# ----------------------------------------------------------------------------------------------- stores


@mistake(
    RaceError, r"every iteration of parallel axis n stores to z\[m\]; index with n, or sum over it with tiles\('N'\)"
)
def race(x, v, y, z, p, s):
    for i, j in parallel("M", "N"):
        z[i] = x[i, j].sum(j)  # here


@mistake(RaceError, r"every iteration over n overwrites z\[m\]; carry the tile and store it after the loop")
def store_in_a_serial_loop(x, v, y, z, p, s):
    for i in parallel("M"):
        for j in tiles("N"):
            z[i] = x[i, j].sum(j)  # here


@mistake(RaceError, r"z\[m1\] was stored already as z\[m\]; store each place once")
def store_twice(x, v, y, z, p, s):
    for i in parallel("M"):
        z[i] = 0
    for i in parallel("M"):
        z[i] = 1  # here


@mistake(RaceError, r"y\[0, N\] was stored already as y\[m, N\]")
def store_over_a_row(x, v, y, z, p, s):
    for i in parallel("M"):
        y[i, :] = x[i, :]
    y[0, :] = 0  # here


@mistake(ShapeError, r"y\[m, N\] takes axes \[m over M, N\] but the value has \[N\]; reduce or index")
def store_of_the_wrong_axes(x, v, y, z, p, s):
    for i in parallel("M"):
        y[i, :] = v[:]  # here


@mistake(DTypeError, r"z holds f32, the value i64; convert it with .to\(f32\)")
def store_of_the_wrong_kind(x, v, y, z, p, s):
    z[:] = p[:]  # here


@mistake(DTypeError, "0.5 is not a value of i64")
def store_of_a_fraction(x, v, y, z, p, s):
    p[:] = 0.5  # here


# -------------------------------------------------------------------------------------------- structure


@mistake(LanguageError, "the loop over N was left by `break` or `return`; its body stands for every iteration")
def break_of_a_loop(x, v, y, z, p, s):
    z[:] = 0
    for _ in tiles("N"):  # here
        break


@mistake(LanguageError, "the loop over N was left by `break`")
def break_of_an_inner_loop(x, v, y, z, p, s):
    for i in parallel("M"):
        for j in tiles("N"):  # here
            y[i, j] = 0
            break


@mistake(LanguageError, "this loop was iterated already; call tiles")
def one_loop_twice(x, v, y, z, p, s):
    rows = tiles("M")
    for i in rows:
        z[i] = 0
    for _ in rows:  # here
        pass


@pytest.mark.parametrize(("function", "error", "message"), MISTAKES)
def test_mistake(function, error, message):
    with pytest.raises(error, match=message) as caught:
        traced(function)
    assert type(caught.value) is error
    code = function.__code__
    lines = Path(__file__).read_text().splitlines()
    marked = next(n for n in range(code.co_firstlineno, len(lines)) if lines[n - 1].endswith("# here"))
    text = str(caught.value)
    assert text.startswith(f"{__file__}:{marked}: ")
    assert text.endswith(f"\n    {lines[marked - 1].strip()}")


def test_the_traceback_is_the_authors():
    with pytest.raises(ShapeError) as caught:
        traced(sum_over_a_missing_axis)
    package = str(Path("src", "tilewright", "language"))
    frames = [f for f in traceback.extract_tb(caught.value.__traceback__) if package in f.filename]
    # The call of trace() and its handler remain; what lies below the author's line does not.
    assert {f.name for f in frames} <= {"trace", "_run"}
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "sum_over_a_missing_axis"


def test_a_value_of_another_kernel():
    kept = []
    traced(lambda x, v, y, z, p, s: (kept.append(v[:]), z.__setitem__(0, 0)))
    with pytest.raises(LanguageError, match="v0 was defined inside another kernel"):
        traced(lambda x, v, y, z, p, s: kept[0] + 1)


def test_tiles_outside_a_kernel():
    with pytest.raises(LanguageError, match="tiles exist only while a kernel is traced"):
        zeros()


def test_a_kernel_that_stores_nothing():
    with pytest.raises(LanguageError, match="kernel 'program' stores nothing; write its result with"):
        traced(lambda *_: None)


def test_errors_of_python_pass_through():
    with pytest.raises(ZeroDivisionError):
        traced(lambda *_: 1 // 0)
    # The next trace starts afresh.
    traced(lambda x, v, y, z, p, s: z.__setitem__(slice(None), f32_of(p)))


def f32_of(p):
    return p[:].to(i64).to(f32)
