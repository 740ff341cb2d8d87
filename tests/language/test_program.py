"""`@kernel`: signatures, dtypes, optional parameters, static options, the cache of traces."""

from __future__ import annotations

import pytest
import tile_programs as programs

from tilewright.errors import ArgumentError, DTypeError, LanguageError
from tilewright.language import Scalar, Tensor, f32, kernel
from tilewright.language.dtypes import bf16, i32


def test_what_a_program_says_of_itself():
    program = programs.matmul
    assert program.name == "matmul"
    assert program.doc == "c = activation(alpha a b^T + bias)."
    assert program.signature.options == (("activation", None),)
    assert [(p.name, p.optional) for p in program.signature.params] == [
        ("a", False), ("b", False), ("c", False), ("bias", True), ("alpha", True),
    ]  # fmt: skip
    assert program.signature.params[0].spec == Tensor["M", "K"]
    assert program.signature.params[4].spec == Scalar["f32"]


def params(kernel_):
    return {p.name: p.dtype.name for p in kernel_.params}


def test_one_dtype_for_all_tensors():
    assert params(programs.matmul.trace("bf16")) == {"a": "bf16", "b": "bf16", "c": "bf16"}
    assert params(programs.matmul.trace(bf16)) == params(programs.matmul.trace("bfloat16"))
    # Fixed dtypes and scalars keep theirs.
    found = params(programs.attention.trace("f16"))
    assert (found["q"], found["lengths"], found["scale"]) == ("f16", "i32", "f32")


def test_a_dtype_for_each_tensor():
    found = programs.matmul.trace({"a": "bf16", "b": "f8e4m3", "c": "f32", "bias": "f32"})
    assert params(found) == {"a": "bf16", "b": "f8e4m3", "c": "f32", "bias": "f32"}
    found = programs.attention.trace({"q": "f32", "k": "f32", "v": "f32", "o": "f32"})
    assert params(found)["lengths"] == "i32"


def test_optional_parameters_are_absent_unless_present():
    found = programs.matmul.trace("bf16", present={"alpha", "bias"})
    assert list(params(found)) == ["a", "b", "c", "bias", "alpha"]


def test_options_are_plain_python():
    text = [
        s.expr for s in programs.matmul.trace("f32", options={"activation": "silu"}).body[0].body if hasattr(s, "expr")
    ]
    assert any(getattr(e, "op", None) == "sigmoid" for e in text)


def test_traces_are_cached_by_what_they_depend_on():
    trace = programs.matmul.trace
    assert trace("bf16") is trace({"a": "bf16", "b": "bf16", "c": "bf16"})
    assert trace("bf16") is not trace("bf16", present={"bias"})
    assert trace("bf16") is not trace("bf16", options={"activation": "silu"})
    assert trace("bf16") is trace("bf16", options={"activation": None})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t("f32", options={"activate": 1}), "matmul has no option 'activate'; its options are activation"),
        (lambda t: t("f32", present={"d"}), "matmul has no parameter 'd'; its parameters are a, b, c, bias, alpha"),
        (lambda t: t({"a": "f32", "c": "f32"}), "matmul was given no dtype for 'b'; add it to the mapping"),
        (lambda t: t({"a": "f32", "b": "f32", "c": "f32", "x": "f32"}), "matmul has no parameter 'x'"),
        (
            lambda _: programs.scatter.trace({"x": "f32", "y": "f32", "slots": "i32"}),
            "'slots' of scatter is i64, not i32",
        ),
    ],
)
def test_calls_that_do_not_fit(call, message):
    with pytest.raises(ArgumentError, match=message):
        call(programs.matmul.trace)


def test_unknown_dtypes():
    with pytest.raises(DTypeError, match="unknown dtype 'f31'"):
        programs.matmul.trace("f31")
    with pytest.raises(DTypeError, match="unknown dtype 'i7'"):
        Tensor["M"].of("i7")


def test_annotations():
    assert Tensor["M"].of("i32") == Tensor(("M",), i32)
    assert Tensor["S", 2, "D"].dims == ("S", 2, "D")
    assert Scalar[f32].dtype is f32


def unannotated(x):
    pass


def with_default(x: Tensor["M"] = 3):
    pass


def option_without_default(x: Tensor["M"], *, mode):
    pass


def bad_dim(x: Tensor["M+1"]):
    pass


def param_is_dim(M: Tensor["M"]):
    pass


def keyword(step: Tensor["M"]):
    pass


def unseen(x: Missing["M"]):
    pass


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (unannotated, "'unannotated', parameter 'x': annotate it as Tensor"),
        (with_default, "parameter 'x': only None may be its default"),
        (option_without_default, "option 'mode': give it a default"),
        (bad_dim, r"dimension 'M\+1' is not a name"),
        (param_is_dim, "'M' is a parameter and a dimension; rename one"),
        (keyword, "'step' is a word of the tile language; rename it"),
        (unseen, "name 'Missing' is not defined; quote dimensions, as in Tensor"),
    ],
)
def test_signatures_that_are_none(function, message):
    with pytest.raises(LanguageError, match=message):
        kernel(function)
