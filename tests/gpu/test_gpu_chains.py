"""Chained products on the GPU, by default and by other designs, against float64: edges, masks, what nobody wrote."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "lower" / "gpu")]

from chains import DESIGNS, capped, design, two_layers
from gpu_products import has_wgmma

from tilewright import ops
from tilewright.build.cuda_kernel import build_many
from tilewright.design.default import default_design
from tilewright.design.legality import legal
from tilewright.language import ir
from tilewright.operators import OPERATORS
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda.dispatch import loaded, machine, requested
from tilewright.runtime.cuda.kernel import layout_on_gpu
from tilewright.runtime.dispatch import Program

TYPES = {"bf16": torch.bfloat16, "f16": torch.float16}


pytestmark = pytest.mark.skipif(not has_wgmma(), reason="this GPU has no wgmma")


class Attention:
    """Operands of one call, drawn; what it should give, in float64."""

    def __init__(self, s, t, d, *, b=2, heads=4, kv=2, dtype="bf16", causal=False, window=None, lengths=None,
                 scale=None, gain=1.0, poisoned=False, seed=0):  # fmt: skip
        draw = torch.Generator("cuda").manual_seed(seed)

        def normal(*shape):
            return (torch.randn(shape, device="cuda", generator=draw) * gain).to(TYPES[dtype])

        self.q, self.k, self.v = normal(b, heads, s, d), normal(b, kv, t, d), normal(b, kv, t, d)
        self.lengths = None if lengths is None else torch.tensor(lengths, device="cuda", dtype=torch.int32)
        if poisoned:
            for n, length in enumerate(lengths):
                self.k[n, :, length:] = math.nan
                self.v[n, :, length:] = math.nan
        self.options = {"causal": causal, "window": window}
        self.scale = d**-0.5 if scale is None else scale
        self.dtype = dtype

    def expected(self):
        out = torch.zeros(self.q.shape, device="cuda", dtype=torch.float64)
        heads = self.q.shape[1]
        for b in range(self.q.shape[0]):
            n = self.k.shape[2] if self.lengths is None else int(self.lengths[b])
            if n:
                v = self.v[b, :, :n].double().repeat_interleave(heads // self.v.shape[1], 0)
                out[b] = torch.softmax(self.scores(b), -1).nan_to_num(0.0) @ v
        return out

    def logarithms(self):
        """Of the sums of each query's powers, in float64."""
        out = torch.full(self.q.shape[:3], -math.inf, device="cuda", dtype=torch.float64)
        for b in range(self.q.shape[0]):
            scores = self.scores(b)
            if scores.shape[-1]:
                out[b] = torch.logsumexp(scores, -1)
        return out

    def scores(self, b):
        """Of one sequence, -inf where a query does not see a key."""
        heads, s = self.q.shape[1:3]
        n = self.k.shape[2] if self.lengths is None else int(self.lengths[b])
        k = self.k[b, :, :n].double().repeat_interleave(heads // self.k.shape[1], 0)
        at, key = n - s + torch.arange(s, device="cuda")[:, None], torch.arange(n, device="cuda")[None]
        seen = torch.ones(s, n, dtype=torch.bool, device="cuda")
        if self.options["causal"]:
            seen &= key <= at
        if self.options["window"]:
            seen &= key > at - self.options["window"]
        return (self.q[b].double() @ k.transpose(-1, -2) * self.scale).masked_fill(~seen, -math.inf)

    def check(self, got):
        expected = self.expected()
        assert torch.isfinite(got).all(), "not finite, or not written"
        error = (got.double() - expected).norm() / expected.norm().clamp_min(1e-30)
        assert error < 6e-3, error.item()

    def by(self, chosen):
        """The result by a design of the operator (a function of program and facts), and the design."""
        out = torch.full_like(self.q, math.nan)
        return out, call(*self.operands(out), chosen)

    def operands(self, out):
        """Program, tensors and scalars of a call."""
        b, heads, s, d = self.q.shape
        kv = self.k.shape[1]
        dtypes = dict.fromkeys(("q", "k", "v", "o"), self.dtype)
        if self.lengths is not None:
            dtypes["lengths"] = "i32"
        program = OPERATORS["attention"].kernel.trace(dtypes, options=self.options)
        grouped = (b, kv, heads // kv, s, d)
        tensors = {"q": self.q.view(grouped), "k": self.k, "v": self.v, "o": out.view(grouped), "lengths": self.lengths}
        return program, tensors, {"scale": self.scale}


def asked(program, tensors, chosen=None):
    """The request of a call by a design, or by the default one; its operands and sizes."""
    buffers = {p.name: Buffer.of(tensors[p.name]) for p in program.params if p.dims is not None}
    layouts = tuple((n, layout_on_gpu(x)) for n, x in buffers.items())
    shapes = [(p.dims, buffers[p.name].shape) for p in program.params if p.dims is not None]
    sizes = {str(d): n for dims, shape in shapes for d, n in zip(dims, shape, strict=True)}
    whole = Program.of(program)
    facts = replace(requested(whole, layouts, sizes, machine(0)).facts(machine(0)), sizes=sizes)
    decided = default_design(program, facts) if chosen is None else chosen(program, facts)
    assert legal(program, decided, facts) == []
    return requested(whole, layouts, sizes, machine(0), decided), buffers, sizes


def call(program, tensors, scalars, chosen=None):
    """Run a program on tensors, twice: the bits are the same. The design that it ran by."""
    request, buffers, sizes = asked(program, tensors, chosen)
    launch = loaded(request, 0).bind(buffers, scalars, sizes)
    written = {s.ref.buffer for s in ir.walk(program.body) if isinstance(s, ir.Store)}
    launch()
    first = {n: tensors[n].clone() for n in written}
    launch()
    torch.cuda.synchronize()
    assert all(torch.equal(first[n], tensors[n]) for n in written)
    return request.design


CASES = {
    "full": {"s": 512, "t": 512, "d": 128},
    "causal": {"s": 512, "t": 512, "d": 128, "causal": True},
    "odd": {"s": 333, "t": 457, "d": 128, "causal": True},
    "more queries than keys": {"s": 300, "t": 77, "d": 128, "causal": True},
    "few queries": {"s": 17, "t": 1000, "d": 128, "causal": True},
    "few queries of four heads": {"s": 16, "t": 1000, "d": 128, "heads": 8, "kv": 2, "causal": True},
    "few queries of five heads": {"s": 33, "t": 300, "d": 64, "heads": 5, "kv": 1, "causal": True},
    "few queries, lengths": {"s": 30, "t": 300, "d": 128, "b": 4, "heads": 8, "kv": 2, "lengths": [0, 299, 1, 129],
                             "poisoned": True},
    "one key": {"s": 64, "t": 1, "d": 64},
    "lengths": {"s": 200, "t": 300, "d": 128, "b": 4, "lengths": [0, 300, 1, 129]},
    "poisoned": {"s": 200, "t": 300, "d": 128, "b": 4, "lengths": [0, 299, 1, 129], "causal": True, "poisoned": True},
    "window": {"s": 700, "t": 700, "d": 128, "causal": True, "window": 100},
    "window of one": {"s": 200, "t": 200, "d": 64, "causal": True, "window": 1},
    "ragged window": {"s": 300, "t": 700, "d": 128, "b": 3, "heads": 6, "kv": 2, "causal": True, "window": 333,
                      "lengths": [700, 0, 431], "poisoned": True},
    "scale below 0": {"s": 256, "t": 300, "d": 128, "scale": -0.3},
    "scale of 0": {"s": 128, "t": 300, "d": 64, "scale": 0.0},
    "large": {"s": 256, "t": 300, "d": 128, "gain": 30.0},
    "f16": {"s": 256, "t": 300, "d": 128, "dtype": "f16", "causal": True},
    "64": {"s": 777, "t": 777, "d": 64, "causal": True},
    "80": {"s": 300, "t": 300, "d": 80, "causal": True},
    "96": {"s": 300, "t": 300, "d": 96},
    "256": {"s": 300, "t": 300, "d": 256, "causal": True},
    "long": {"s": 256, "t": 40000, "d": 128, "b": 1, "heads": 1, "kv": 1},
}  # fmt: skip


def by_name(decisions):
    """A design by the decisions of the tests' table."""
    return lambda program, facts: design(program, {**decisions, "columns": min(decisions["columns"], 96)})


PACKED = {
    "16 rows of 3 heads": ({"s": 21, "t": 700, "d": 128, "heads": 6, "kv": 2, "b": 3, "causal": True, "window": 333,
                            "lengths": [700, 0, 431], "poisoned": True}, {"rows": 16, "tile.g": 4, "warpgroups": 1}),
    "32 rows of 5 heads": ({"s": 70, "t": 300, "d": 64, "heads": 5, "kv": 1, "causal": True},
                           {"rows": 32, "tile.g": 4, "schedule": "pingpong"}),
    "64 rows of 3 heads": ({"s": 200, "t": 300, "d": 128, "heads": 3, "kv": 1},
                           {"rows": 64, "tile.g": 2, "own": True, "store": "tma"}),
    "16 rows of 8 heads": ({"s": 16, "t": 1000, "d": 80, "heads": 16, "kv": 2}, {"rows": 16, "tile.g": 8}),
}  # fmt: skip


def packed(decisions):
    """A design that packs heads."""
    common = {"columns": 64, "stages": 2, "warpgroups": 2, "overlap": True, "persistent": True, "drawn": True}
    return lambda program, facts: design(program, {**common, "stages.item": 2, **decisions})


OTHERS = [("odd" if n % 2 else "ragged window", name) for n, name in enumerate(DESIGNS)]


@pytest.fixture(scope="module", autouse=True)
def compiled_side_by_side():
    """Every kernel of these tests, by all cores at once; workers of xdist compile side by side as it is."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    wanted = [asked(*_program(case))[0] for case in CASES.values()]
    wanted += [asked(*_program(CASES[case]), by_name(DESIGNS[name]))[0] for case, name in OTHERS]
    wanted += [asked(*_program(case), packed(decisions))[0] for case, decisions in PACKED.values()]
    build_many(dict.fromkeys(wanted), machine(0), os.cpu_count() or 1)


def _program(case):
    problem = Attention(**case)
    return problem.operands(torch.empty_like(problem.q))[:2]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_default_design_is_right(case):
    problem = Attention(**case)
    out, decided = problem.by(None)
    problem.check(out)
    assert {atom for _, atom in decided.prefixed("atom")} == {"wgmma"}


@pytest.mark.parametrize(("case", "name"), OTHERS)
def test_other_designs_are_right(case, name):
    problem = Attention(**CASES[case])
    problem.check(problem.by(by_name(DESIGNS[name]))[0])


@pytest.mark.parametrize(("case", "decisions"), PACKED.values(), ids=PACKED)
def test_heads_side_by_side_in_a_tile_of_rows_are_right(case, decisions):
    problem = Attention(**case)
    problem.check(problem.by(packed(decisions))[0])


@pytest.mark.parametrize("name", ["causal", "lengths"])
def test_the_operator_that_users_call_is_right(name):
    problem = Attention(**CASES[name])
    problem.check(
        ops.attention(problem.q, problem.k, problem.v, lengths=problem.lengths, scale=problem.scale, **problem.options)
    )


@pytest.mark.parametrize(
    "name", ["full", "causal", "odd", "poisoned", "ragged window", "64", "80", "scale below 0", "f16"]
)
def test_logarithms_of_sums_leave_beside_the_result(name):
    problem = Attention(**CASES[name])
    given = {"lengths": problem.lengths, "scale": problem.scale, **problem.options}
    o, lse = ops.attention(problem.q, problem.k, problem.v, return_lse=True, **given)
    problem.check(o)
    expected = problem.logarithms()
    assert torch.equal(torch.isneginf(lse), torch.isneginf(expected))
    assert (lse.double() - expected).nan_to_num(0.0, neginf=0.0).abs().max() < 1e-4 * max(1.0, problem.scale * 50)


def test_equal_scores_share_their_weight():
    q, k = torch.zeros(1, 1, 64, 64, device="cuda", dtype=torch.bfloat16), torch.randn(1, 1, 300, 64, device="cuda")
    v = torch.randn(1, 1, 300, 64, device="cuda").bfloat16()
    got = ops.attention(q, k.bfloat16(), v)
    assert (got.float() - v.float().mean(2, keepdim=True)).abs().max() < 4e-3


def test_a_row_of_scores_of_minus_infinity_gives_no_number_as_in_float64():
    problem = Attention(64, 64, 64, b=1, heads=1, kv=1)
    problem.q[:, :, 3] = 1.0
    problem.k[:] = -math.inf
    got = ops.attention(problem.q, problem.k, problem.v)
    assert torch.isnan(got[:, :, 3]).all() or (got[:, :, 3] == 0).all()


def test_one_sequence_alone_and_in_a_batch_gives_the_same_bits():
    problem = Attention(200, 300, 128, b=3, lengths=[300, 77, 211], causal=True)
    whole = ops.attention(problem.q, problem.k, problem.v, lengths=problem.lengths, causal=True)
    for n in range(3):
        alone = [x[n : n + 1].contiguous() for x in (problem.q, problem.k, problem.v, problem.lengths)]
        assert torch.equal(ops.attention(*alone[:3], lengths=alone[3], causal=True), whole[n : n + 1])


def test_a_program_of_a_user_with_capped_scores_and_slopes():
    h, n, d = 3, 333, 64
    draw = torch.Generator("cuda").manual_seed(1)
    q, k, v = (torch.randn(h, n, d, device="cuda", generator=draw).bfloat16() for _ in range(3))
    slopes = torch.tensor([0.5, 0.25, 0.125], device="cuda")
    o, top = torch.full_like(q, math.nan), torch.full((h, n), math.nan, device="cuda")
    program = capped.trace(dict.fromkeys(("q", "k", "v", "o"), "bf16") | {"slopes": "f32", "top": "f32"})
    call(program, {"q": q, "k": k, "v": v, "slopes": slopes, "o": o, "top": top}, {"scale": d**-0.5})
    at = torch.arange(n, device="cuda")
    z = torch.tanh(q.double() @ k.double().transpose(1, 2) * d**-0.5 / 20) * 20
    z = z - slopes[:, None, None].double() * (at[:, None] - at[None]).double()
    z = z.masked_fill(at[None] > at[:, None], -math.inf)
    expected = torch.softmax(z, -1) @ v.double()
    assert (o.double() - expected).norm() / expected.norm() < 6e-3
    assert ((top.double() * math.log(2)) - z.max(-1).values).abs().max() < 2e-2


def test_two_layers_of_a_network_never_meet_memory_between():
    m, f, k, n = 300, 777, 64, 64
    draw = torch.Generator("cuda").manual_seed(2)
    x, up, gate = (torch.randn(r, k, device="cuda", generator=draw).bfloat16() for r in (m, f, f))
    down = torch.randn(f, n, device="cuda", generator=draw).mul(f**-0.5).bfloat16()
    up, gate = up * k**-0.5, gate * k**-0.5
    y = torch.full((m, n), math.nan, device="cuda", dtype=torch.bfloat16)
    decided = call(two_layers.trace("bf16"), {"x": x, "up": up, "gate": gate, "down": down, "y": y}, {})
    assert {atom for _, atom in decided.prefixed("atom")} == {"wgmma"}
    g = x.double() @ gate.double().T
    expected = (torch.nn.functional.silu(g) * (x.double() @ up.double().T)).bfloat16().double() @ down.double()
    assert (y.double() - expected).norm() / expected.norm() < 6e-3


def test_a_captured_call_draws_its_tiles_again():
    problem = Attention(1000, 1000, 64, causal=True)
    out = torch.full_like(problem.q, math.nan)
    ops.attention(problem.q, problem.k, problem.v, causal=True, out=out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ops.attention(problem.q, problem.k, problem.v, causal=True, out=out)
    for _ in range(3):
        out.fill_(math.nan)
        graph.replay()
        problem.check(out)
