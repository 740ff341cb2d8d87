"""Rows C2 and C4 of the list of capabilities: the operators of a decoder, and their bench beside PyTorch.

Attention's own rows, experts' products and whole models have tests of their own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "gpu"))

from operator_cases import Draw, draw

from tilewright import operators
from tilewright.bench.rows_cases import row_cases
from tilewright.build import nvrtc
from tilewright.build.cuda_kernel import CudaStages
from tilewright.build.kernel_cache import Request
from tilewright.design.default import Facts, default_design
from tilewright.design.gpu.rows import fixed_dims
from tilewright.emit.abi import TensorLayout
from tilewright.language import structure
from tilewright.language.interpreter import bind_sizes, run
from tilewright.lower.gpu.stages import lower_gpu
from tilewright.machines.machine import Machine
from tilewright.runtime import tolerance

GPU = Machine.named("h200")


def scheduled(call):
    """A call's program by its default design on an H200, its facts, and operands for the interpreter."""
    tensors = dict(call.inputs)
    for name, (shape, kind) in call.outputs.items():
        poison = np.full(shape, -1 if np.dtype(kind).kind == "i" else np.nan, kind)
        tensors[name] = np.array(call.inputs[name]) if name in call.operator.updates else poison
    tensors = {n: x for n, x in tensors.items() if x is not None}
    kernel = call.operator.kernel.trace({n: dtype_name(x) for n, x in tensors.items()}, options=call.options)
    whole = {a for let in structure.lets(kernel).values() for a in let.type.axes if a in kernel.dims}
    sizes = bind_sizes(kernel, tensors)
    fixed = tuple(d for d in kernel.dims if d in whole or d in fixed_dims(kernel))
    layouts = tuple(
        (p.name, TensorLayout((*[None] * (len(p.dims) - 1), 1), 16)) for p in kernel.params if p.dims is not None
    )
    unit = {n: (len(x.strides) - 1,) for n, x in layouts}
    facts = Facts(sizes, unit, GPU, frozenset(unit), frozenset(fixed))
    request = Request(kernel, default_design(kernel, facts), layouts, tuple((d, sizes[d]) for d in fixed))
    return request, facts, tensors


def dtype_name(x):
    return {"bfloat16": "bf16", "float16": "f16", "float32": "f32", "int32": "i32", "int64": "i64"}[x.dtype.name]


def holds(call):
    """Its scheduled program means what the operator should, and where NVRTC is, becomes a kernel without spills."""
    request, facts, tensors = scheduled(call)
    run(lower_gpu(request.kernel, request.design, facts), tensors, call.scalars)
    for output, exact in call.expected().items():
        tolerance.check(output, tensors[output], exact)
    if nvrtc.missing() is None:
        report = CudaStages(request, GPU).compiled.report
        assert (report.spill_stores, report.stack) == (0, 0)


# ------------------------------------------------------------------------------------------------- C2
NORMS, CHOICES = ("rmsnorm", "add_rmsnorm", "layernorm", "softmax"), ("embedding", "argmax", "topk")


@pytest.mark.parametrize("element", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("name", [*NORMS, *CHOICES, "swiglu", "geglu", "silu", "gelu", "scale_add"])
def test_C2_operators_of_rows(name, element):
    holds(draw(name, 5, element))


@pytest.mark.parametrize("name", ["penalise", "mark", "likeliest_parts", "likeliest_join"])
def test_C2_what_comes_before_a_choice_and_is_told_after_it(name):
    for seed in range(3):
        holds(draw(name, seed, "f32"))


@pytest.mark.parametrize("name", ["matmul", "gate_up", "batched_matmul"])
@pytest.mark.parametrize("seed", [1, 2, 6])
def test_C2_products_with_epilogues(name, seed):
    request, facts, tensors = scheduled(call := draw(name, seed, "bf16"))
    run(lower_gpu(request.kernel, request.design, facts), tensors, call.scalars)
    for output, exact in call.expected().items():
        tolerance.check(output, tensors[output], exact)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("partial", [False, True])
def test_C2_rope_whole_or_partial_at_any_positions_and_back(partial, positions, inverse):
    d = Draw(3, "bf16")
    angle = d.random.standard_normal((9, 2, 16))
    inputs = {"x": d.normal(2, 5, 4, 2, 16), "cos": np.cos(angle).astype(d.type), "sin": np.sin(angle).astype(d.type)}
    outputs = {"y": ((2, 5, 4, 2, 16), d.type)}
    if positions:
        inputs["positions"] = d.whole(9, 2, 5)
    if partial:
        inputs["rest"] = d.normal(2, 5, 4, 24)
        outputs["rest_y"] = ((2, 5, 4, 24), d.type)
    from operator_cases import Call

    holds(Call(operators.rope, inputs, outputs, options={"inverse": inverse}))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["rope_cache", "paged_rope_cache"])
def test_C2_rope_of_fused_queries_and_keys_of_groups_into_the_cache(name, seed):
    """Queries and fewer keys in one launch, read as views of the fused projection, with norms, written to the cache."""
    holds(draw(name, seed, "bf16"))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["attention", "paged_attention", "packed_attention"])
def test_C2_attention_ragged_paged_causal_windowed(name, seed):
    request, facts, tensors = scheduled(call := draw(name, seed, "bf16"))
    run(lower_gpu(request.kernel, request.design, facts), tensors, call.scalars)
    for output, exact in call.expected().items():
        tolerance.check(output, tensors[output], exact)


@pytest.mark.parametrize("causal", [False, True])
def test_C2_attention_over_ranges_of_keys_is_joined_by_the_logarithms_of_its_sums(causal):
    import tilewright as tw

    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal((2, h, n, 16), np.float32) for h, n in ((4, 5), (2, 12), (2, 12)))
    whole = tw.ops.attention(q, k, v, causal=causal)
    # Under a mask the last keys are seen by position, and those before them by all queries.
    parts = [
        tw.ops.attention(q, k[:, :, :7], v[:, :, :7], return_lse=True),
        tw.ops.attention(q, k[:, :, 7:], v[:, :, 7:], causal=causal, return_lse=True),
    ]
    weights = np.exp([lse for _, lse in parts] - np.logaddexp(*(lse for _, lse in parts)))
    joined = sum(w[..., None] * o for w, (o, _) in zip(weights, parts, strict=True))
    np.testing.assert_allclose(joined, whole, rtol=1e-5, atol=1e-6)


def test_C2_query_heads_of_one_head_of_keys_share_a_tile_of_rows():
    """A search may give 16 queries of four heads the 64 rows of one tile: the keys are read once for all of them."""
    from tilewright.design.gpu.chain import chain
    from tilewright.design.gpu.chain_design import shortlist

    kernel = operators.attention.kernel.trace(dict.fromkeys(("q", "k", "v", "o"), "bf16"), options={"causal": True})
    sizes = {"B": 2, "H": 2, "G": 4, "S": 16, "T": 100, "D": 64, "E": 64}
    tensors = {p.name: p.dims for p in kernel.params if p.dims}
    unit = {t: (len(dims) - 1,) for t, dims in tensors.items()}
    facts = Facts(sizes, unit, GPU, frozenset(tensors), frozenset(("D", "E")))
    packed = [d for d in shortlist(kernel, chain(kernel), facts) if d.get("tile.g")]
    assert {(d.number("tile.g"), d.number("tile.s")) for d in packed} == {(4, 16)}
    d = Draw(1, "bf16")
    inputs = {"q": d.normal(2, 2, 4, 16, 64), "k": d.normal(2, 2, 100, 64), "v": d.normal(2, 2, 100, 64)}
    o = np.full((2, 2, 4, 16, 64), np.nan, d.type)
    run(lower_gpu(kernel, packed[0], facts), {**inputs, "o": o}, {"scale": 0.125})
    tolerance.check("o", o, operators.attention.reference(**inputs, scale=0.125, causal=True)["o"])


def test_C2_rope_interleaved_is_the_same_program_on_other_strides():
    import tilewright as tw

    random = np.random.default_rng(0)
    x = random.standard_normal((2, 3, 4, 16), np.float32)
    angle = random.standard_normal((3, 16))
    angle[:, 1::2] = angle[:, ::2]  # both of a pair turn by one angle
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    y = tw.ops.rope(x, cos, sin, interleaved=True)
    crossed = np.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)
    np.testing.assert_allclose(y, x * cos[None, :, None] + crossed * sin[None, :, None], rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------------- C4
def test_C4_every_row_operator_is_a_case_of_the_bench_beside_torch():
    """By one command, beside eager torch and torch.compile; the rope study and products have benches of their own."""
    from tilewright.bench.plan import estimate
    from tilewright.bench.rows_jobs import RowsRequest, rows_jobs
    from tilewright.bench.worker import JOBS

    jobs = rows_jobs(RowsRequest())
    assert {job.kind for job in jobs} <= set(JOBS) and estimate(jobs) > 0
    products = ("matmul", "gate_up", "batched_matmul")
    attentions = ("attention", "paged_attention", "packed_attention", "key_ranges")
    choice = ("sample_parts", "sample_join", "level_begin", "level_again", "level_parts", "level_join")
    choice = (*choice, "penalise", "mark", "likeliest_parts", "likeliest_join")
    others = {*products, *attentions, "rope_cache", "paged_rope_cache", *choice}
    assert {c.operator for c in row_cases()} == set(operators.OPERATORS) - others


NCU = """#!/bin/sh
echo "==PROF== Connected"
echo '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"'
echo '"0","rmsnorm","gpu__time_duration.sum","us","33.1"'
echo '"0","rmsnorm","dram__bytes_read.sum","Mbyte","67.1"'
"""


def test_C4_counters_of_nsight_compute_are_read_where_it_is(tmp_path, monkeypatch):
    from tilewright.bench.rows_profile import counters, nsight
    from tilewright.errors import MachineError

    monkeypatch.setenv("PATH", str(tmp_path))
    assert nsight() is None
    with pytest.raises(MachineError, match="not on the path"):
        counters(["true"], "rmsnorm")
    tool = tmp_path / "ncu"
    tool.write_text(NCU.replace("#!/bin/sh", "#!/bin/sh\nPATH=/bin:/usr/bin"))
    tool.chmod(0o755)
    assert counters(["true"], "rmsnorm") == {"time": "33.1 us", "read from memory": "67.1 Mbyte"}
    tool.write_text("#!/bin/sh\necho '==ERROR== no permission'\n")
    with pytest.raises(MachineError, match="counted nothing"):
        counters(["true"], "rmsnorm")
