"""Ranges dealt to blocks and warps, on the GPU: every way of dealing them against float64, twice the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gpu_programs import run_text, to_gpu, to_numpy
from operator_cases import draw

from tilewright import ops
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.printer import show
from tilewright.lower.gpu.simt import lower_simt
from tilewright.runtime import tolerance
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda.dispatch import loaded, machine, requested
from tilewright.runtime.cuda.kernel import layout_on_gpu
from tilewright.runtime.dispatch import Program

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def facts_of(kernel, buffers, sizes):
    layouts = tuple((p.name, layout_on_gpu(buffers[p.name])) for p in kernel.params if p.dims)
    unit = {n: tuple(d for d, s in enumerate(x.strides) if s == 1) for n, x in layouts}
    return layouts, Facts(sizes, unit, machine(0), frozenset(n for n, x in layouts if x.align >= 16), frozenset("DE"))


def launched(call, changes):
    """The results of drawn attention, by its default design with some decisions changed, of two launches."""
    kind = np.dtype(call.outputs["o"][1])
    tensors = {n: to_gpu(x) for n, x in call.inputs.items()}
    tensors["o"] = to_gpu(np.full(call.outputs["o"][0], np.nan, kind))
    names = {v: k for k, v in TYPES.items()} | {torch.int32: "i32"}
    kernel = call.operator.kernel.trace({n: names[x.dtype] for n, x in tensors.items()}, options=call.options)
    buffers = {n: Buffer.of(x) for n, x in tensors.items()}
    dims = [(p.dims, buffers[p.name].shape) for p in kernel.params if p.dims]
    sizes = {str(d): n for names_, shape in dims for d, n in zip(names_, shape, strict=True)}
    layouts, facts = facts_of(kernel, buffers, sizes)
    design = Design.of({**dict(default_design(kernel, facts).decisions), **changes})
    launch = loaded(requested(Program.of(kernel), layouts, sizes, machine(0), design), 0).bind(
        buffers, call.scalars, sizes
    )
    found = []
    for _ in range(2):
        tensors["o"].fill_(float("nan"))
        launch()
        torch.cuda.synchronize()
        found.append(to_numpy(tensors["o"], kind).copy())
    return found


WAYS = [
    {"warps": 1, "part": 1}, {"warps": 4, "part": 2}, {"warps": 8, "part": 1, "stages": 1},
    {"warps": 4, "part": 1, "stages": 2}, {"warps": 2, "part": 2, "stages": 3}, {"warps": 4, "part": 2, "turns": True},
    {"warps": 4, "part": 2, "stages": 2, "engine": "tma"}, {"warps": 4, "part": 2, "stages": 3, "engine": "tma"},
    {"warps": 2, "part": 4, "stages": 2, "engine": "tma", "turns": True}, {"warps": 2, "part": 2, "cache": "strong"},
    {"warps": 4, "part": 1, "stages": 1, "engine": "registers"},
    {"warps": 2, "part": 4, "stages": 1, "engine": "registers", "turns": True},
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("element", ["bf16", "f16", "f32"])
@pytest.mark.parametrize(("name", "axis"), [("attention", "t"), ("paged_attention", "l")])
def test_every_way_of_dealing_a_range_gives_the_same_attention(name, axis, element, way):
    for seed in range(2 if element == "bf16" else 1):
        call = draw(name, seed, element)
        step = 16 if element != "f32" else 8
        changes = {"tile.t" if axis == "t" else "tile.p": step, "warps": way["warps"]}
        changes[f"part.{axis}"] = way["part"] * way["warps"] * (step if axis == "t" else 1)
        if "stages" in way and call.inputs["q"].shape[-1] * call.inputs["q"].dtype.itemsize % 16 == 0:
            changes["stages"] = way["stages"]
            if "engine" in way and element != "f32":
                changes |= {f"engine.{t}": way["engine"] for t in call.inputs if t[0] in "kv"}
        if "cache" in way and element != "f32":
            changes |= {f"cache.{t}": way["cache"] for t in call.inputs if t[0] in "kv"}
        if "turns" in way:
            changes["turns"] = True
        first, second = launched(call, changes)
        tolerance.check("o", first, call.expected()["o"])
        assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("size", [1, 63, 1000, 100_003])
def test_sums_and_online_softmax_of_a_users_program_are_dealt_out(size):
    from tilewright.language.parser import parse

    text = """kernel k(x: f32[M, N], y: f32[M], z: f32[M]) {
      for m in M parallel {
        top = full -1e30 : f32[m]
        total = full 0.0 : f32[m]
        for n in N {
          v = load x[m, n] : f32[m, n]
          here = reduce max v over n : f32[m]
          new = max top here : f32[m]
          gap = sub top new : f32[m]
          fade = exp2 gap : f32[m]
          low = sub v new : f32[m, n]
          p = exp2 low : f32[m, n]
          s = reduce sum p over n : f32[m]
          a = mul total fade : f32[m]
          b = add a s : f32[m]
          total := b
          top := new
        }
        store y[m] = top
        store z[m] = total
      } }"""
    design = {"tile.m": 1, "tile.n": 128, "part.n": 2048, "warps": 4, "lanes": ("n", "m"), "vec.x": 4}
    scheduled = lower_simt(parse(text), Design.of(design), Facts({}, {"x": (1,)}, machine(0)))
    torch.manual_seed(size)
    x = torch.randn(3, size, device="cuda") * 8
    y, z = (torch.full((3,), float("nan"), device="cuda") for _ in range(2))
    run_text(show(scheduled), {"x": x, "y": y, "z": z})
    assert torch.equal(y, x.amax(1))
    exact = torch.exp2(x.double() - x.amax(1, keepdim=True).double()).sum(1)
    torch.testing.assert_close(z.double(), exact, rtol=1e-5, atol=0)
    assert any(
        ir.note(s.notes, "bind") == "grid" for s in ir.walk(scheduled.body) if isinstance(s, ir.Loop) and s.notes
    )


# ------------------------------------------------------------------------------------------------ calls of ops
def decoding(lengths, room, heads=(8, 2), head=128, seed=0):
    torch.manual_seed(seed)
    b = len(lengths)
    q = torch.randn(b, heads[0], 1, head, device="cuda").bfloat16()
    k, v = (torch.randn(b, heads[1], room, head, device="cuda").bfloat16() for _ in range(2))
    for n, length in enumerate(lengths):
        k[n, :, length:], v[n, :, length:] = float("nan"), float("nan")
    return q, k, v, torch.tensor(lengths, device="cuda", dtype=torch.int32)


def exact(q, k, v, lengths):
    out = torch.zeros(*q.shape, dtype=torch.float64, device="cuda")
    group = q.shape[1] // k.shape[1]
    for b, n in enumerate(lengths.tolist()):
        if n:
            keys, values = (x[b, :, :n].double().repeat_interleave(group, 0) for x in (k, v))
            p = torch.softmax(q[b].double() @ keys.transpose(1, 2) * q.shape[-1] ** -0.5, -1)
            out[b] = p @ values
    return out


@pytest.mark.parametrize("head", [64, 128])
def test_one_launch_decodes_a_batch_of_any_lengths(head):
    q, k, v, lengths = decoding([0, 1, 2047, 4096, 16, 300, 4095], 4096, head=head)
    torch.testing.assert_close(
        ops.attention(q, k, v, causal=True, lengths=lengths).double(), exact(q, k, v, lengths), rtol=2e-2, atol=2e-3
    )


@pytest.mark.parametrize("head", [64, 80, 128])
def test_a_cache_of_eight_bits_is_decoded_and_written(head):
    """Against float64 of what the cache holds; zero, short and long requests; rows written as x86 writes them."""
    q, k, v, lengths = decoding([0, 1, 2047, 4096, 16, 300, 4095], 4096, head=head)
    scales = [torch.tensor(x, device="cuda") for x in ([0.25, 0.125], [0.0625, 0.03125])]
    cached = [(x / s[:, None, None].bfloat16()).to(torch.float8_e4m3fn) for x, s in zip((k, v), scales, strict=True)]
    held = [x.double() * s[:, None, None].double() for x, s in zip(cached, scales, strict=True)]
    ours = ops.attention(q, *cached, causal=True, lengths=lengths, k_scale=scales[0], v_scale=scales[1])
    torch.testing.assert_close(ours.double(), exact(q, *held, lengths), rtol=2e-2, atol=2e-3)
    assert torch.equal(
        ours, ops.attention(q, *cached, causal=True, lengths=lengths, k_scale=scales[0], v_scale=scales[1])
    )
    new = [torch.randn(7, 1, n, head, device="cuda").bfloat16() for n in (8, 2, 2)]
    angles = torch.rand(4096, head // 2)
    tables = [torch.cat([x, x], 1) for x in (angles.cos(), angles.sin())]
    places = torch.arange(7)[:, None] * 500
    caches = [torch.zeros(7, 2, 4096, head, dtype=torch.float8_e4m3fn) for _ in range(2)]
    there = [x.cuda() for x in caches]
    here = ops.rope_cache(
        *(x.cpu() for x in new), *tables, places, *caches, k_scale=scales[0].cpu(), v_scale=scales[1].cpu()
    )
    out = ops.rope_cache(*new, *(x.cuda() for x in tables), places.cuda(), *there, k_scale=scales[0], v_scale=scales[1])
    torch.testing.assert_close(out.cpu().float(), here.float(), rtol=1e-2, atol=1e-2)
    assert torch.equal(there[1].cpu().view(torch.uint8), caches[1].view(torch.uint8))  # values are only divided
    far = (there[0].cpu().float() - caches[0].float()).abs()
    assert (far <= 0.13 * caches[0].float().abs() + 2.0**-9).all()  # keys: one step of 8 bits, where they are at a tie


@pytest.mark.parametrize("page", [16, 64])
def test_pages_give_what_rows_give(page):
    q, k, v, lengths = decoding([0, 1, 2047, 4096, 16, 300, 4095], 4096)
    b, heads, room, head = k.shape
    order = torch.randperm(b * room // page, device="cuda")
    pages = []
    for x in (k, v):
        cut = x.view(b, heads, room // page, page, head).permute(0, 2, 1, 3, 4).reshape(-1, heads, page, head)
        pages.append(torch.empty_like(cut))
        pages[-1][order] = cut
    table = order.view(b, -1).int()
    for n, length in enumerate(lengths.tolist()):
        table[n, -(-length // page) :] = -1
    ours = ops.paged_attention(q, *pages, table, lengths)
    torch.testing.assert_close(ours.double(), exact(q, k, v, lengths), rtol=2e-2, atol=2e-3)


def test_wrong_tables_and_lengths_lead_nowhere():
    """Nobody looks at them before the kernel does: it stays inside of the pages, and others of the batch are right."""
    q, k, v, lengths = decoding([64, 4096, 48], 4096)
    pages = [x.view(3, 2, 256, 16, 128).transpose(1, 2).reshape(-1, 2, 16, 128).contiguous() for x in (k, v)]
    table = torch.arange(3 * 256, device="cuda", dtype=torch.int32).view(3, -1)
    right = ops.paged_attention(q, *pages, table, lengths)
    table[1, ::2], table[1, 1::2] = 2**31 - 1, -(2**31)
    lengths[1] = 2**31 - 1
    wrong = ops.paged_attention(q, *pages, table, lengths)
    torch.cuda.synchronize()
    assert torch.equal(wrong[[0, 2]], right[[0, 2]])
    lengths[1] = 2**31 - 1
    ops.attention(q, k, v, causal=True, lengths=lengths)
    torch.cuda.synchronize()


def test_a_request_gives_the_same_bits_alone_and_in_a_batch():
    """Parts are as long whatever else is in the batch, once a kernel is chosen for it."""
    q, k, v, lengths = decoding([4096, 700, 33, 2048] * 8, 4096)
    together = ops.attention(q, k, v, causal=True, lengths=lengths)
    again = ops.attention(q, k, v, causal=True, lengths=lengths)
    assert torch.equal(together, again)
    others = ops.attention(q.roll(1, 0), k.roll(1, 0), v.roll(1, 0), causal=True, lengths=lengths.roll(1, 0))
    assert torch.equal(together, others.roll(-1, 0))


def test_decoding_is_captured_in_a_graph_and_follows_the_lengths():
    q, k, v, lengths = decoding([500, 4096, 0, 77], 4096)
    out = ops.attention(q, k, v, causal=True, lengths=lengths)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ops.attention(q, k, v, causal=True, lengths=lengths, out=out)
    for new in ([1, 500, 77, 0], [500, 4096, 0, 77], [256, 3000, 0, 5]):
        lengths.copy_(torch.tensor([min(n, m) for n, m in zip(new, [500, 4096, 0, 77], strict=True)], device="cuda"))
        out.fill_(float("nan"))
        graph.replay()
        torch.cuda.synchronize()
        torch.testing.assert_close(out.double(), exact(q, k, v, lengths), rtol=2e-2, atol=2e-3)
