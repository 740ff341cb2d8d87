"""`compile`, `launch` and `bind`: kernels in the hand, programs of a user's own, and operands that do not fit."""

from __future__ import annotations

from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tilewright import Scalar, Tensor, f32
from tilewright.build.cuda_kernel import CudaStages
from tilewright.design.book.store import Book
from tilewright.design.default import default_design
from tilewright.errors import ArgumentError, DTypeError, MachineError
from tilewright.runtime.subject import Subject
from tilewright.runtime.work import Work


@tw.kernel
def gated_norm(
    x: Tensor["M", "D"], gate: Tensor["M", "D"], weight: Tensor["D"], y: Tensor["M", "D"], eps: Scalar["f32"]
):
    """A residual norm behind a gate: in no operator file."""
    for i in tw.parallel("M"):
        squares = tw.zeros(i, dtype=f32)
        for d in tw.tiles("D"):
            v = x[i, d].to(f32)
            squares += (v * v).sum(d)
        scale = tw.rsqrt(squares / tw.size("D").to(f32) + eps)
        for d in tw.tiles("D"):
            v = x[i, d].to(f32)
            y[i, d] = v + tw.sigmoid(gate[i, d].to(f32)) * v * scale * weight[d]


@tw.kernel
def shift(x: Tensor["M"], y: Tensor["M"], bias: Tensor["M"] = None, *, twice=False):
    for i in tw.parallel("M"):
        v = x[i] if bias is None else x[i] + bias[i]
        y[i] = v + v if twice else v


def operands(dtype=np.float32, rows=5, columns=70):
    random = np.random.default_rng(0)
    x, gate = (random.standard_normal((rows, columns)).astype(dtype) for _ in range(2))
    weight = random.standard_normal(columns).astype(dtype)
    return {"x": x, "gate": gate, "weight": weight, "y": np.full((rows, columns), np.nan, dtype)}


def expected(o):
    x, gate, weight = (o[n].astype(np.float64) for n in ("x", "gate", "weight"))
    norm = x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-5) * weight
    return x + norm / (1 + np.exp(-gate))


# ------------------------------------------------------------------------------------------------ launch, bind
@pytest.mark.parametrize("dtype, bound", [(np.float32, 4e-6), (ml_dtypes.bfloat16, 2**-8), (np.float16, 2**-10)])
def test_a_program_of_ones_own(dtype, bound):
    o = operands(dtype)
    assert tw.launch(gated_norm, **o, eps=1e-5) is None
    meant = expected(o)
    assert np.all(np.abs(o["y"].astype(np.float64) - meant) <= bound * (np.abs(meant) + 1))


def test_torch_tensors_and_strided_arrays():
    torch = pytest.importorskip("torch")
    o = operands()
    tensors = {n: torch.from_numpy(x) for n, x in o.items()}
    tensors["gate"] = torch.from_numpy(np.asfortranarray(o["gate"]))
    tw.launch(gated_norm, **tensors, eps=1e-5)
    np.testing.assert_allclose(o["y"], expected(o), rtol=1e-5, atol=1e-5)


def test_bound_once_run_often():
    o = operands()
    run = tw.bind(gated_norm, **o, eps=1e-5)
    for _ in range(2):
        o["x"] *= 2
        o["y"][...] = np.nan
        run()
        np.testing.assert_allclose(o["y"], expected(o), rtol=1e-5, atol=1e-5)


def test_options_and_optional_operands():
    x, y = np.arange(5, dtype=np.float32), np.full(5, np.nan, np.float32)
    tw.launch(shift, x=x, y=y)
    assert np.array_equal(y, x)
    tw.launch(shift, x=x, y=y, bias=np.ones(5, np.float32), twice=True)
    assert np.array_equal(y, 2 * (x + 1))


@pytest.mark.parametrize("rows, columns", [(0, 4), (4, 0), (1, 1)])
def test_few_or_no_elements(rows, columns):
    o = operands(rows=rows, columns=columns)
    tw.launch(gated_norm, **o, eps=1e-5)
    np.testing.assert_allclose(o["y"], expected(o) if columns else o["y"], rtol=1e-5)


@pytest.mark.parametrize(
    "change, error, says",
    [
        ({"y": None}, ArgumentError, "was not given y"),
        ({"z": 1}, ArgumentError, "no operand 'z'"),
        ({"weight": np.ones(3, np.float32)}, ArgumentError, "weight of shape .3. has 3 where D is 70, that of x"),
        ({"weight": np.ones((1, 70), np.float32)}, ArgumentError, "has 2 dimensions"),
        ({"eps": "small"}, ArgumentError, "eps='small' is no f32"),
        ({"eps": True}, ArgumentError, "eps=True is no f32"),
        ({"eps": None}, ArgumentError, "was not given eps"),
        ({"x": [1, 2]}, ArgumentError, "x: expected a NumPy array or a torch tensor"),
        ({"x": np.zeros((5, 70), "M8[s]")}, DTypeError, "datetime64"),
    ],
)
def test_operands_that_do_not_fit(change, error, says):
    with pytest.raises(error, match=says):
        tw.launch(gated_norm, **{**operands(), "eps": 1e-5, **change})


def test_outputs_need_memory_of_their_own():
    o = operands()
    with pytest.raises(ArgumentError, match="output y shares memory with x"):
        tw.launch(gated_norm, **{**o, "y": o["x"]}, eps=1e-5)
    o["y"].flags.writeable = False
    with pytest.raises(ArgumentError, match="output y is read-only"):
        tw.launch(gated_norm, **o, eps=1e-5)
    flat = np.lib.stride_tricks.as_strided(np.zeros(70, np.float32), (5, 70), (0, 4))
    with pytest.raises(ArgumentError, match="elements of the output y share memory"):
        tw.launch(gated_norm, **{**o, "y": flat}, eps=1e-5)


def test_what_is_no_program():
    with pytest.raises(ArgumentError, match="no tile program"):
        tw.launch(print, x=1)


# ------------------------------------------------------------------------------------------------ compile
def test_a_kernel_in_the_hand():
    kernel = tw.compile(tw.operators.matmul, M=3, N=40, K=70)
    assert "define void @tw_run" in kernel.source and "fma(" in kernel.listing and "tw_run" in kernel.assembly
    assert kernel.design.names("lanes") and kernel.program.name == "matmul"
    random = np.random.default_rng(0)
    a, b = random.standard_normal((3, 70), dtype=np.float32), random.standard_normal((40, 70), dtype=np.float32)
    c = np.full((3, 40), np.nan, np.float32)
    kernel.run(a, b, c)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b.T.astype(np.float64), rtol=1e-5, atol=1e-4)


def test_sizes_that_are_no_part_of_the_code_may_change():
    kernel = tw.compile(tw.operators.rmsnorm, M=2, D=64)
    x, w, y = np.ones((7, 33), np.float32), np.full(33, 3, np.float32), np.full((7, 33), np.nan, np.float32)
    kernel.run(x, w, y, eps=0.0)
    np.testing.assert_allclose(y, 3, rtol=1e-6)
    kernel.run(np.asfortranarray(x), w, y.T.copy().T, eps=0.0)


def test_sizes_that_are_part_of_the_code_may_not():
    kernel = tw.compile(tw.operators.attention, B=1, H=1, G=1, S=1, T=4, D=8, E=8)
    assert kernel.fixed == {"D": 8, "E": 8}
    q, k = np.zeros((1, 1, 1, 1, 16), np.float32), np.zeros((1, 1, 4, 16), np.float32)
    with pytest.raises(ArgumentError, match="was compiled for D=8, not 16"):
        kernel.run(q, k, k, np.zeros_like(q), scale=1.0)


def test_a_design_is_followed():
    design = tw.Design.of({"tile.m": 2, "tile.n": 1, "tile.k": 1, "lanes": ()})
    kernel = tw.compile(tw.operators.matmul, design, M=2, N=2, K=3)
    assert kernel.design == design and "vec=1)" in kernel.listing and "vec=2" not in kernel.listing
    a, c = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 2), np.nan, np.float32)
    kernel.run(a, a, c)
    assert np.array_equal(c, a @ a.T)


def test_a_record_brings_design_sizes_and_dtype():
    record = SimpleNamespace(
        design=tw.Design.of({"tile.m": 1, "tile.d": 8, "lanes": ("d",)}), sizes={"M": 2, "D": 8}, dtype="bf16"
    )
    kernel = tw.compile(tw.operators.scale_add, record)
    assert kernel.design == record.design and kernel.program.params[0].dtype.name == "bf16"


def test_options_and_present_operands():
    kernel = tw.compile(tw.operators.matmul, M=2, N=2, K=2, options={"activation": "relu"}, present=("bias",))
    a, c = np.eye(2, dtype=np.float32), np.full((2, 2), np.nan, np.float32)
    kernel.run(a, a, c, np.float32([-0.5, -2]))
    assert np.array_equal(c, [[0.5, 0], [0, 0]])


def test_positions_are_integers():
    kernel = tw.compile(tw.operators.embedding, N=2, V=3, D=4)
    table, y = np.arange(12, dtype=np.float32).reshape(3, 4), np.full((2, 4), np.nan, np.float32)
    kernel.run(np.int32([2, 0]), table, y)
    assert np.array_equal(y, table[[2, 0]])


def test_estimates():
    estimate = tw.compile(tw.operators.matmul, M=64, N=32, K=16).estimate
    assert estimate.flops == 2 * 64 * 32 * 16
    assert estimate.bytes == 4 * (64 * 16 + 32 * 16 + 64 * 32)
    assert estimate.intensity == estimate.flops / estimate.bytes
    assert tw.compile(tw.operators.scale_add, M=8, D=8).estimate.flops == 2 * 64
    assert tw.compile(tw.operators.embedding, N=2, V=1000, D=4).estimate.bytes == 4 * (2 + 8 + 8)
    unknown = tw.compile(tw.operators.scale_add, M=8, D=8, machine=tw.Machine.named("x86-avx2")).estimate
    assert (unknown.seconds, unknown.bound) == (None, "unknown")


def test_a_roofline():
    machine = tw.Machine.named("h200")
    rate, peak = machine.memory.read or machine.memory.bandwidth, machine.peak("bf16")
    streaming, dense = Work(1e9, 10**9), Work(1e15, 10**9)
    assert streaming.bound(machine, "bf16") == (10**9 / rate, "memory")
    assert dense.bound(machine, "bf16") == (1e15 / peak, "compute")


@pytest.mark.parametrize(
    "sizes, says",
    [({}, "given: none"), ({"M": 1, "N": 1}, "needs the sizes M, K, N"), ({"M": 1, "N": 1, "K": 1.5}, "K=1.5")],
)
def test_sizes_must_be_all_there(sizes, says):
    with pytest.raises(ArgumentError, match=says):
        tw.compile(tw.operators.matmul, **sizes)


def test_runs_take_what_the_program_takes():
    kernel = tw.compile(tw.operators.rmsnorm, M=2, D=8)
    x, w = np.ones((2, 8), np.float32), np.ones(8, np.float32)
    with pytest.raises(ArgumentError, match=r"takes 3 arrays .x, weight, y., not 2"):
        kernel.run(x, w, eps=1e-5)
    with pytest.raises(ArgumentError, match="not given the scalar eps"):
        kernel.run(x, w, x.copy())
    with pytest.raises(ArgumentError, match="no scalar 'epsilon'"):
        kernel.run(x, w, x.copy(), eps=1e-5, epsilon=1)
    with pytest.raises(DTypeError, match=r"x of shape .2, 8. is f64, not f32"):
        kernel.run(x.astype(np.float64), w, x.copy(), eps=1e-5)


def test_a_kernel_for_another_machine_is_only_looked_at():
    kernel = tw.compile(tw.operators.scale_add, M=2, D=8, machine=tw.Machine.named("sapphire-rapids"))
    assert "define void @tw_run" in kernel.source
    x = np.ones((2, 8), np.float32)
    with pytest.raises(MachineError, match="looked at, not run"):
        kernel.run(x, x, x.copy(), alpha=1.0)


# ------------------------------------------------------------------------------------------------ for a GPU
H200 = tw.Machine.named("h200")
ON_A_GPU = {
    "many rows": ("matmul", {"M": 2048, "N": 4096, "K": 4096}),
    "few rows": ("matmul", {"M": 16, "N": 4096, "K": 4096}),
    "one row": ("matmul", {"M": 1, "N": 4096, "K": 4096}),
    "rows at any address": ("matmul", {"M": 1000, "N": 777, "K": 333}),
    "softmax": ("softmax", {"M": 4096, "D": 4096}),
    "long row": ("rmsnorm", {"M": 1, "D": 4096}),
    "decode": ("attention", {"B": 4, "H": 8, "G": 4, "S": 1, "D": 128, "T": 4096, "E": 128}),
}


@pytest.mark.parametrize("case", ON_A_GPU)
def test_a_design_that_a_search_found_for_a_gpu_is_compiled_as_it_was_measured(case):
    """Sizes, and how rows are aligned, are those of the search's own kernel: `compile(matmul, search(matmul, ...))`."""
    name, sizes = ON_A_GPU[case]
    operator = tw.operators.OPERATORS[name]
    subject = Subject.of(operator, sizes, "bf16", machine=H200)
    found = SimpleNamespace(
        design=default_design(subject.kernel, subject.facts), sizes=sizes, dtype="bf16", machine=H200
    )
    kernel = tw.compile(operator, found)
    assert kernel.machine == H200 and kernel.fixed == sizes
    measured = CudaStages(subject.request(found.design), H200)
    assert kernel.source == measured.source
    assert tw.compile(operator, dtype="bf16", machine=H200, **sizes).design == found.design


def test_what_a_search_gives_names_its_machine():
    book, sizes = Book.in_memory(), {"M": 3, "D": 8}
    machines = [tw.search(tw.operators.silu, budget="1 trials", book=book, **sizes).machine for _ in range(2)]
    assert machines == [tw.Machine.detect()] * 2  # searched, and then known


def test_what_search_and_compile_refuse_names_the_fix():
    with pytest.raises(ArgumentError, match=r'budget=4 is no text; write "60s"'):
        tw.search(tw.operators.matmul, M=4, N=8, K=8, budget=4)
    with pytest.raises(MachineError, match="no machine is called 'h2'; the nearest are h200"):
        tw.compile(tw.operators.matmul, M=4, N=8, K=8, machine="h2")
    with pytest.raises(MachineError, match=r"give Machine\.detect"):
        tw.search(tw.operators.matmul, M=4, N=8, K=8, budget="1 trials", machine=3)
    with pytest.raises(ArgumentError, match=r"give tw\.operators\.matmul"):
        tw.compile("matmul", M=4, N=8, K=8)


def test_a_machine_goes_by_name_and_what_comes_back_is_one_line():
    kernel = tw.compile(tw.operators.matmul, M=4, N=8, K=8, machine="x86-avx2")
    assert repr(kernel) == f"<kernel matmul M=4 K=8 N=8 for x86-avx2, design {kernel.design.hash}>"
    found = tw.search(tw.operators.softmax, M=4, D=8, budget="1 trials", threads=1)
    assert repr(found).startswith(f"<design {found.design.hash} of softmax D=8 M=4 dtype=f32: ")
    with pytest.raises(ArgumentError, match="the design is for softmax, not for matmul"):
        tw.compile(tw.operators.matmul, found)
