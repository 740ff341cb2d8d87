"""Rows of the list of capabilities, each under its own name."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest
from cases import Case, Memory
from compiled import SSE2, Guarded, Run, machines
from counted import Counted
from programs import facts, traced

import tilewright as tw
from tilewright import Scalar, Tensor, f32, operators
from tilewright.build.kernel_cache import Request, build
from tilewright.design.design import Design
from tilewright.design.mutations import Unroll, Vectorise, neighbours
from tilewright.emit.abi import TensorLayout
from tilewright.emit.listing import listing
from tilewright.emit.llvm import VectorUnit, emit
from tilewright.errors import IllegalDesign, VerificationError
from tilewright.language import ir, structure
from tilewright.language.interpreter import run
from tilewright.lower.stages import lower
from tilewright.operators import Exact
from tilewright.runtime import dispatch, tolerance
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.table import Table

MATMUL = traced("matmul", activation=None)


def thread_listing(program: ir.Kernel, design: Design, vector_bytes: int = 16) -> str:
    layouts = {p.name: TensorLayout((None,) * (len(p.dims) - 1) + (1,)) for p in program.params if p.dims is not None}
    return listing(lower(program, design), layouts, {}, VectorUnit(vector_bytes, frozenset()))


# ------------------------------------------------------------------------------------------------- A9
@pytest.mark.parametrize("times", [2, 4, 8])
def test_A9_unrolling_with_a_correct_remainder(times):
    """One kernel, unrolled `times`, for every length around multiples of what one pass takes."""
    start = Design.of({"tile.m": 2, "tile.n": 4, "lanes": ("n",)})
    design = Unroll("k", times).apply(start)
    one = products(start)
    assert one > 0
    assert products(design) == (times + 1) * one  # a pass of `times` tiles, and one for what remains
    for k in sorted({0, 1, times - 1, times, times + 1, 2 * times - 1, 2 * times, 5 * times + 3}):
        memory = Guarded(k, "rows")
        inputs = {"a": memory.normal((3, k)), "b": memory.normal((9, k))}
        case = Case(operators.matmul, inputs, {"c": ((3, 9), np.float32)}, options={"activation": None})
        drawn = Run(case, memory, SSE2)
        drawn.check(drawn.kernel(design))


def products(design: Design) -> int:
    """Multiplications that are written out."""
    layouts = {p.name: TensorLayout((None, 1)) for p in MATMUL.params if p.dims is not None}
    module = emit(lower(MATMUL, design), layouts, {}, VectorUnit(16, frozenset()))
    return module.text.count("= call <4 x float> @llvm.fm")


# ------------------------------------------------------------------------------------------------ A10
@tw.kernel
def scale(a: Tensor["M", "D"], t: Tensor["M", "D"], alpha: Scalar["f32"]):
    for i, d in tw.parallel("M", "D"):
        t[i, d] = alpha * a[i, d].to(f32)


@tw.kernel
def add(t: Tensor["M", "D"], b: Tensor["M", "D"], c: Tensor["M", "D"]):
    for i, d in tw.parallel("M", "D"):
        c[i, d] = t[i, d] + b[i, d]


def passes(program: ir.Kernel) -> int:
    """How often a whole tensor goes through the memory system: loads and stores that move over all of it, once."""
    moved = [ref for _, ref in structure.loads(program)]
    moved += [s.ref for s in ir.walk(program.body) if isinstance(s, ir.Store)]
    (loop,) = (s for s in program.body if isinstance(s, ir.Loop))
    axes = [a.name for a in loop.axes]
    assert all(list(ref.index) == axes for ref in moved), "an access that is repeated, or covers a part"
    return len(moved)


def test_A10_alpha_A_plus_B_is_one_kernel_with_three_tensor_passes(monkeypatch):
    fused = lower(traced("scale_add"), Design.of({}))
    eager = [lower(program.trace("f32"), Design.of({})) for program in (scale, add)]
    assert sum(map(passes, eager)) == 5
    assert passes(fused) == 3
    # And it is one kernel with one phase in the machine, whose result is that of the two.
    monkeypatch.setattr(dispatch, "_kernels", {})
    monkeypatch.setattr(dispatch, "_by_design", {})
    monkeypatch.setattr(dispatch, "TABLE", Table())
    random = np.random.default_rng(0)
    a, b = random.standard_normal((2, 33, 70), np.float32)
    c = tw.ops.scale_add(a, -1.5, b)
    assert [k.name for k in dispatch.kernels()] == ["scale_add"]
    tolerance.check("c", c, operators.scale_add.reference(a, b, -1.5)["c"])


# ------------------------------------------------------------------------------------------------ A15
def ragged(lengths, room, heads=2, head_size=16):
    random = np.random.default_rng(1)
    q = random.standard_normal((len(lengths), heads, 3, 1, head_size), np.float32)
    k, v = random.standard_normal((2, len(lengths), heads, room, head_size), np.float32)
    for b, length in enumerate(lengths):
        k[b, :, length:], v[b, :, length:] = np.nan, np.nan
    inputs = {"q": q, "k": k, "v": v, "lengths": np.array(lengths)}
    case = Case(operators.attention, inputs, {"o": (q.shape, np.float32)}, {"scale": 0.25})
    case.options = {"causal": True, "window": None}
    return case


def test_A15_padding_does_no_work():
    """Keys are read as often as there are true positions, in the program and in what it is lowered to."""
    lengths, room = [5, 0, 64, 17], 64
    case = ragged(lengths, room)
    program = operators.attention.kernel.trace(
        {n: "i64" if n == "lengths" else "f32" for n in (*case.inputs, "o")}, options=case.options
    )
    design = Design.of({"tile.g": 4, "tile.t": 16, "lanes": ("D", "E", "t")})
    for scheduled in (program, lower(program, design)):
        Counted.read = 0
        tensors = {**case.inputs, "k": case.inputs["k"].view(Counted)}
        tensors["o"] = np.full(case.inputs["q"].shape, np.nan, np.float32)
        run(scheduled, tensors, case.scalars)
        assert Counted.read == sum(lengths) * 2 * 16  # heads, head size; not len(lengths) * room
        tolerance.check("o", tensors["o"], case.expected()["o"])
    # Machine code: what lies behind a sequence is NaN, and no output is.
    out = np.full(case.inputs["q"].shape, np.nan, np.float32)
    buffers = {n: Buffer.of(x) for n, x in {**case.inputs, "o": out}.items()}
    dispatch.bind(operators.attention, buffers, case.scalars, case.options)()
    tolerance.check("o", out, case.expected()["o"])


def test_A15_tiles_of_padding_are_not_visited():
    """The loop over keys ends at the true length: its bound comes from `lengths`, whatever the tile."""
    program = lower(traced("attention", full=True, causal=False, window=None), Design.of({"tile.t": 16}))
    (keys,) = (a for a in structure.axes(program).values() if a.over == "T")
    bound = structure.lets(program)[str(keys.stop)]
    assert isinstance(bound.expr, ir.Load)
    assert bound.expr.ref.buffer == "lengths"


# ------------------------------------------------------------------------------------------------ A18
def test_A18_ahead_of_time_architecture_jit_dynamic_sizes(tmp_path, monkeypatch):
    """Head sizes are constants of the kernel, lengths its arguments: a new one compiles nothing, nor does a process."""
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path))
    seconds = []
    for _process in range(2):
        monkeypatch.setattr(dispatch, "_kernels", {})
        monkeypatch.setattr(dispatch, "_by_design", {})
        monkeypatch.setattr(dispatch, "TABLE", Table())
        for lengths in ([40], [41], [77], [130], [500], [513], [40, 900], [3, 700, 64]):
            case = ragged(lengths, max(lengths) + 33)
            out = np.full(case.inputs["q"].shape, np.nan, np.float32)
            buffers = {n: Buffer.of(x) for n, x in {**case.inputs, "o": out}.items()}
            dispatch.bind(operators.attention, buffers, case.scalars, case.options)()
            tolerance.check("o", out, case.expected()["o"])
        (kernel,) = dispatch.kernels()
        seconds.append(kernel.binary.seconds)
    assert dispatch.whole_dims(kernel.program) == ("D", "E")
    assert seconds[0] > 0
    assert seconds[1] == 0


# ------------------------------------------------------------------------------------------------- B3
def test_B3_two_loads_of_one_become_one_load_of_two():
    """The mutation, seen in the thread listing; the meaning is kept on the machine."""
    before = Design.of({"tile.k": 2})
    mutation = Vectorise("k")
    assert mutation in set(neighbours(MATMUL, before, facts(MATMUL)))
    after = mutation.apply(before)
    assert loads(before, "a") == [("(m, k)", 1), ("(m, k + 1)", 1)]
    assert loads(after, "a") == [("(m, k)", 2)]
    memory = Guarded(3, "rows")
    inputs = {"a": memory.normal((5, 13)), "b": memory.normal((7, 13))}
    case = Case(operators.matmul, inputs, {"c": ((5, 7), np.float32)}, options={"activation": None})
    for design in (before, after):
        drawn = Run(case, memory, SSE2)
        drawn.check(drawn.kernel(design))


def loads(design, tensor):
    """(place, vec) of the loads from a tensor in the first tile of the innermost loop."""
    found = re.findall(rf"load\({tensor}, (\([^)]*\)), vec=(\d+)", thread_listing(MATMUL, design))
    return list(dict.fromkeys((place, int(vec)) for place, vec in found))


def test_B3_the_listing_names_place_cache_and_width():
    text = thread_listing(traced("scale_add"), Design.of({"tile.d": 4, "lanes": ("d",)}))
    assert re.search(r"\(a0, a1, a2, a3\) = load\(a, \(m, d\), (cache=\w+, )?vec=4", text)


# ------------------------------------------------------------------------------------------------- B4
def test_B4_legality_before_emission(monkeypatch):
    monkeypatch.setattr("tilewright.build.stages.lower", lambda *_: pytest.fail("it was lowered"))
    layouts = tuple((n, TensorLayout((None, 1))) for n in "abc")
    bad = Design.of({"tile.m": 64, "tile.n": 64, "lanes": ("n",), "unroll.m": 2})
    with pytest.raises(IllegalDesign) as error:
        build(Request(MATMUL, bad, layouts, ()), machines()[max(machines())])
    assert "[unrolls] unroll.m=2: m is not the last axis of a serial loop (k); drop it" in str(error.value)
    assert "[registers] tile.m=64, tile.n=64" in str(error.value)
    assert "take smaller tiles" in str(error.value)


# ------------------------------------------------------------------------------------------------- C3
@pytest.mark.parametrize("kind", [np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)], ids=str)
def test_C3_float64_tolerances(kind):
    """A right kernel is well inside the bound; one lost term, or sums in the storage type, are outside."""
    memory = Memory(5)
    a, b = (memory.random.standard_normal((40, 3000)).astype(kind) for _ in range(2))
    exact = operators.matmul.reference(a, b)["c"]
    wide = Exact(exact.value, exact.magnitude, exact.terms)
    assert exact.value.dtype == np.float64
    c = np.full((40, 40), np.nan, np.float32)
    buffers = {n: Buffer.of(x) for n, x in {"a": a, "b": b, "c": c}.items()}
    dispatch.bind(operators.matmul, buffers, {}, {"activation": None})()
    assert tolerance.check("c", c, wide) < 0.5
    lost = a.astype(np.float64)
    lost[:, 17] = 0
    with pytest.raises(VerificationError, match="times the bound for float32"):
        tolerance.check("c", (lost @ b.astype(np.float64).T).astype(np.float32), wide)
    if kind.itemsize == 2:
        narrow = np.zeros((40, 40), kind)
        for k in range(3000):
            narrow = (narrow + a[:, k, None] * b[None, :, k]).astype(kind)
        with pytest.raises(VerificationError):
            tolerance.check("c", narrow.astype(np.float32), wide)
