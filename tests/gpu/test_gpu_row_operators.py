"""Rows on the GPU: every design of them, and inputs that are easy to get wrong, against float64."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sys.path.append(str(Path(__file__).parent))

from gpu_programs import facts_of, run_call, to_gpu, to_numpy
from operator_cases import TYPES, Call, draw

from tilewright import ops
from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.design.space import random_design
from tilewright.errors import IllegalDesign
from tilewright.language import structure
from tilewright.operators import OPERATORS
from tilewright.runtime import tolerance
from tilewright.runtime.cuda import dispatch

ROWS = ["rmsnorm", "add_rmsnorm", "layernorm", "softmax", "argmax", "topk", "rmsnorm_backward", "softmax_backward"]
OTHERS = [
    "rmsnorm_weight_backward",
    "silu",
    "gelu",
    "swiglu",
    "geglu",
    "swiglu_backward",
    "geglu_backward",
    "scale_add",
    "embedding",
    "rope",
]
LEVELS = ["sample_parts", "level_begin", "level_again", "level_parts", "level_join"]
TOLD = ["penalise", "likeliest_parts", "likeliest_join"]


def judge(call, outputs):
    for output, exact in call.expected().items():
        tolerance.check(output, to_numpy(outputs[output], call.outputs[output][1]), exact)


def of_rows(name, x, element="f32"):
    """A call of an operator of one tensor."""
    kind, (m, n) = TYPES[element], x.shape
    outputs = {"softmax": {"y": ((m, n), kind)}, "argmax": {"index": ((m,), np.dtype(np.int32))}}.get(name)
    options = {}
    if name == "topk":
        options = {"k": min(5, n)}
        outputs = {"values": ((m, options["k"]), kind), "index": ((m, options["k"]), np.dtype(np.int32))}
    return Call(OPERATORS[name], {"x": x.astype(kind)}, outputs, options=options)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", [*ROWS, *OTHERS, *LEVELS, *TOLD])
def test_any_design_computes_what_was_written(name, seed):
    call = draw(name, 7 * seed + 1, ("bf16", "f32", "f16")[seed % 3])
    tensors = {n: to_gpu(x) for n, x in call.inputs.items()}
    tensors |= {n: to_gpu(np.zeros(shape, kind)) for n, (shape, kind) in call.outputs.items()}
    kernel, facts, _ = facts_of(call, tensors)
    judge(call, by_a_drawn_design(call, kernel, facts, random.Random(f"{name}{seed}")))


def by_a_drawn_design(call, kernel, facts, dice):
    """Outputs by the first design drawn that is not refused for what it spills, as only the assembler knows."""
    refused = []
    for _ in range(6):
        try:
            return run_call(call, random_design(kernel, facts, dice))
        except IllegalDesign as reason:
            assert "[spills]" in str(reason)
            refused.append(str(reason))
    pytest.fail("\n".join(refused))


@pytest.mark.parametrize("blocks", [2, 4, 8])
@pytest.mark.parametrize("length", [1000, 4096, 128256])
@pytest.mark.parametrize("name", ["softmax", "argmax", "rmsnorm", "layernorm"])
def test_blocks_of_a_cluster_share_a_row(name, length, blocks):
    dice = np.random.default_rng(length)
    call = draw(name, 1, "bf16")
    x = dice.standard_normal((3, length), np.float32).astype(TYPES["bf16"])
    call.inputs = {n: x if v.ndim == 2 else x[0] for n, v in call.inputs.items()}
    call.outputs = {n: ((3, length) if len(s) == 2 else (3,), k) for n, (s, k) in call.outputs.items()}
    tensors = {n: to_gpu(v) for n, v in call.inputs.items()}
    tensors |= {n: to_gpu(np.zeros(s, k)) for n, (s, k) in call.outputs.items()}
    kernel, facts, _ = facts_of(call, tensors)
    axes = [a for a in ("d", "d1", "d2") if a in structure.axes(kernel)]
    lanes = {"lanes": (*axes, "m"), "warps": 4, "tile.m": 1, "vec.x": 8}
    for persistent in (False, True):
        design = {**lanes, **{f"tile.{a}": 1024 for a in axes}, **{f"split.{a}": blocks for a in axes}}
        chosen = Design.of({**design, **({"persistent": True} if persistent else {})})
        assert legal(kernel, chosen, facts) == []
        judge(call, run_call(call, chosen))


# ----------------------------------------------------------------------------------------- awkward inputs
@pytest.mark.parametrize("element", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("length", [7, 128, 4096, 40000])
@pytest.mark.parametrize("name", ["argmax", "topk"])
def test_of_equal_elements_the_first_is_taken(name, length, element):
    x = np.random.default_rng(length).integers(-2, 3, (9, length)).astype(np.float32)
    x[1], x[2] = 0.0, -np.inf
    judge(call := of_rows(name, x, element), run_call(call))


@pytest.mark.parametrize("length", [5, 4096, 40000])
def test_nan_is_seen_and_counts_as_infinity(length):
    x = np.random.default_rng(0).standard_normal((4, length)).astype(np.float32)
    x[0, 3], x[1, 2], x[1, 4] = np.nan, np.inf, np.nan
    for name in ("argmax", "topk"):
        judge(call := of_rows(name, x), run_call(call))


@pytest.mark.parametrize("element", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("length", [1, 100, 4096, 40000])
def test_masked_rows_of_softmax(length, element):
    x = np.random.default_rng(1).standard_normal((6, length)).astype(np.float32) * 30
    x[0] = -np.inf  # nothing is left: NaN, as torch gives
    x[1, ::2] = -np.inf
    x[2] = 0.0
    judge(call := of_rows("softmax", x, element), outputs := run_call(call))
    assert torch.isnan(outputs["y"][0].float()).all()


@pytest.mark.parametrize("name", ["softmax", "argmax", "topk"])
def test_very_large_numbers(name):
    x = np.random.default_rng(2).standard_normal((5, 5000)).astype(np.float32) * 1e37
    judge(call := of_rows(name, x), run_call(call))


@pytest.mark.parametrize("element", ["f32", "bf16"])
@pytest.mark.parametrize("name", ["softmax", "argmax"])
def test_a_million_elements_in_a_row(name, element):
    x = np.random.default_rng(3).standard_normal((2, (1 << 20) + 24)).astype(np.float32)
    judge(call := of_rows(name, x, element), run_call(call))


@pytest.mark.parametrize("shift", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("length", [1, 63, 1000, 4096])
def test_rows_at_any_address_are_read_and_nothing_beside_them_is_written(length, shift):
    room = torch.full((6 * 5000,), -7.0, device="cuda", dtype=torch.bfloat16)
    x = torch.randn(6, length + shift, device="cuda").to(torch.bfloat16)[:, shift:]
    y = room[shift : shift + 6 * length].view(6, length)
    weight = torch.randn(length + shift, device="cuda").to(torch.bfloat16)[shift:]
    ops.rmsnorm(x, weight, 1e-5, out=y)
    exact = OPERATORS["rmsnorm"].reference(x.float().cpu().numpy(), weight.float().cpu().numpy(), 1e-5)["y"]
    tolerance.check("y", to_numpy(y.contiguous(), TYPES["bf16"]), exact)
    y.fill_(-7.0)
    assert (room == -7.0).all()


def test_rows_are_overwritten_in_place():
    for m, n in ((1, 4096), (300, 4096), (17, 1000), (2, 128256)):
        x = torch.randn(m, n, device="cuda").to(torch.bfloat16)
        weight = torch.randn(n, device="cuda").to(torch.bfloat16)
        apart, soft = ops.rmsnorm(x, weight), ops.softmax(x)
        assert torch.equal(ops.softmax(x.clone(), out=(own := x.clone())), soft) and torch.equal(own, soft)
        ops.softmax(own := x.clone(), out=own)
        assert torch.equal(own, soft)
        ops.rmsnorm(x, weight, out=x)
        assert torch.equal(x, apart)


def test_nothing_to_do_is_done():
    for shape in ((0, 8), (3, 0), (0, 0)):
        x = torch.empty(shape, device="cuda")
        assert ops.softmax(x).shape == ops.silu(x).shape == shape
        assert ops.rmsnorm(x, torch.empty(shape[1], device="cuda")).shape == shape


def test_the_same_bits_twice_and_a_row_alone_as_among_others():
    x = torch.randn(500, 4096, device="cuda").to(torch.bfloat16)
    first, second = ops.softmax(x), ops.softmax(x)
    assert torch.equal(first, second)
    columns = [OPERATORS["rmsnorm_weight_backward"]]
    call = draw(columns[0].name, 3, "bf16")
    one, two = run_call(call), run_call(call)
    assert torch.equal(one["dweight"], two["dweight"])


def test_many_lengths_share_a_kernel_in_the_end():
    before = dispatch.MOST_LENGTHS
    x = torch.randn(3, 4000, device="cuda")
    try:
        dispatch.MOST_LENGTHS = 0
        for length in (1, 77, 1500, 4000):
            y = ops.softmax(x[:, :length])
            torch.testing.assert_close(y, torch.softmax(x[:, :length], -1), rtol=1e-5, atol=1e-6)
    finally:
        dispatch.MOST_LENGTHS = before


@pytest.mark.parametrize("element", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("rotated", [128, 64])
@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
def test_heads_turn_whole_or_in_part_by_halves_or_neighbours_at_any_position(interleaved, placed, rotated, element):
    x = torch.randn(3, 70, 5, 128, device="cuda").to(element)
    angle = torch.rand(90, rotated // 2, device="cuda", dtype=torch.float64) * 6
    angle = angle.repeat_interleave(2, -1) if interleaved else angle.repeat(1, 2)
    cos, sin = angle.cos().to(element), angle.sin().to(element)
    positions = torch.randint(0, 90, (3, 70), device="cuda", dtype=torch.int32) if placed else None
    y = ops.rope(x, cos, sin, interleaved=interleaved, positions=positions)
    rows = positions.long() if placed else torch.arange(70, device="cuda")[None].expand(3, 70)
    head, c, s = x[..., :rotated].double(), cos[rows][:, :, None].double(), sin[rows][:, :, None].double()
    first, second = (head[..., ::2], head[..., 1::2]) if interleaved else head.chunk(2, -1)
    crossed = torch.stack((-second, first), -1).flatten(-2) if interleaved else torch.cat((-second, first), -1)
    bound = 2.0 ** {torch.bfloat16: -8, torch.float16: -11, torch.float32: -22}[element]  # half a step of the result
    error = (y[..., :rotated].double() - (head * c + crossed * s)).abs()
    assert (error <= bound * ((head * c).abs() + (crossed * s).abs()) * 1.01 + 1e-7).all()
    assert torch.equal(y[..., rotated:], x[..., rotated:])
