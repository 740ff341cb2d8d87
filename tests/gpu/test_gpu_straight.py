"""Products of few rows straight from memory, on the GPU: deals, types, edges, epilogues; and launches that overlap."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
from tilewright.design.default import Facts  # noqa: E402
from tilewright.design.gpu.product import product  # noqa: E402
from tilewright.design.gpu.straight import straight  # noqa: E402
from tilewright.design.legality import legal  # noqa: E402
from tilewright.operators import OPERATORS  # noqa: E402
from tilewright.runtime.buffer import Buffer  # noqa: E402
from tilewright.runtime.cuda.dispatch import loaded, machine, requested  # noqa: E402
from tilewright.runtime.cuda.kernel import layout_on_gpu  # noqa: E402
from tilewright.runtime.cuda.measure import captured  # noqa: E402
from tilewright.runtime.dispatch import Program  # noqa: E402

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "i8": torch.int8, "i32": torch.int32}


def bound(operator, tensors, deal, atom, constant=(), options=None):
    """A launch of a product by a design of `deal`, whose legality is asserted."""
    names = {t: n for n, t in TYPES.items()}
    program = OPERATORS[operator].kernel.trace({n: names[x.dtype] for n, x in tensors.items()}, options=options or {})
    buffers = {n: replace(Buffer.of(x), writable=n not in constant) for n, x in tensors.items()}
    layouts = tuple((p.name, layout_on_gpu(buffers[p.name])) for p in program.params)
    sizes = {d: n for p in program.params for d, n in zip(p.dims or (), buffers[p.name].shape, strict=True)}
    unit = {n: tuple(d for d, s in enumerate(x.strides) if s == 1) for n, x in layouts}
    aligned = frozenset(n for n, x in layouts if x.align >= 16)
    facts = Facts(sizes, unit, machine(0), aligned, frozenset(sizes))
    design = straight(product(program), facts, *deal, atom)
    assert legal(program, design, facts) == []
    request = requested(Program.of(program), layouts, sizes, machine(0), design, tuple(sizes))
    return loaded(request, 0).bind(buffers, {}, sizes)


def whole(kind, *shape):
    """Small whole numbers: every product and sum is exact."""
    return torch.randint(-4, 5, shape, device="cuda").to(TYPES[kind])


@pytest.mark.parametrize("deal", [(1, 8, 1, 4), (2, 4, 2, 2), (4, 1, 4, 1), (1, 5, 1, 3), (1, 16, 1, 8), (2, 1, 1, 4)])
@pytest.mark.parametrize("atom", ["mma", "fma"])
@pytest.mark.parametrize("size", [(1, 512, 2048), (3, 200, 1000), (8, 136, 4096), (5, 77, 264)])
def test_every_deal_gives_every_element(atom, deal, size):
    m, n, k = size
    a, b = whole("bf16", m, k), whole("bf16", n, k)
    c = torch.full((m, n), float("nan"), device="cuda", dtype=torch.bfloat16)
    bound("matmul", {"a": a, "b": b, "c": c}, deal, atom)()
    torch.cuda.synchronize()
    assert torch.equal(c, (a.double() @ b.double().t()).to(torch.bfloat16))


@pytest.mark.parametrize("rows", [16, 17, 33, 64, 100])
def test_more_rows_come_in_more_fragments_and_tiles(rows):
    a, b = whole("bf16", rows, 1024), whole("bf16", 264, 1024)
    c = torch.full((rows, 264), float("nan"), device="cuda", dtype=torch.bfloat16)
    bound("matmul", {"a": a, "b": b, "c": c}, (1, 4, 1, 2), "mma")()
    torch.cuda.synchronize()
    assert torch.equal(c, (a.double() @ b.double().t()).to(torch.bfloat16))


@pytest.mark.parametrize(("kind", "atom"), [("f16", "mma"), ("f16", "fma"), ("f32", "fma"), ("i8", "mma")])
def test_other_types_are_multiplied_too(kind, atom):
    a, b = whole(kind, 4, 2048), whole(kind, 96, 2048)
    out = torch.int32 if kind == "i8" else TYPES[kind]
    c = torch.full((4, 96), -7, device="cuda").to(out)
    bound("matmul", {"a": a, "b": b, "c": c}, (1, 4, 1, 2), atom)()
    torch.cuda.synchronize()
    assert torch.equal(c, (a.double() @ b.double().t()).to(out))


@pytest.mark.parametrize("atom", ["mma", "fma"])
def test_epilogues_follow_the_joined_sums(atom):
    a, b, bias, residual = whole("bf16", 3, 1024), whole("bf16", 72, 1024), whole("bf16", 72), whole("bf16", 3, 72)
    c = torch.full((3, 72), float("nan"), device="cuda", dtype=torch.bfloat16)
    tensors = {"a": a, "b": b, "c": c, "bias": bias, "residual": residual}
    bound("matmul", tensors, (1, 4, 2, 2), atom, options={"activation": "relu"})()
    torch.cuda.synchronize()
    exact = (a.double() @ b.double().t() + bias.double()).clamp(min=0) + residual.double()
    assert torch.equal(c, exact.to(torch.bfloat16))


@pytest.mark.parametrize("atom", ["mma", "fma"])
def test_gate_and_up_share_x(atom):
    x, gate, up = (torch.randn(*s, device="cuda").bfloat16() for s in ((2, 2048), (96, 2048), (96, 2048)))
    gate, up = gate / 45, up / 45
    y = torch.full((2, 96), float("nan"), device="cuda", dtype=torch.bfloat16)
    bound("gate_up", {"x": x, "gate": gate, "up": up, "y": y}, (1, 4, 1, 4), atom)()
    torch.cuda.synchronize()
    exact = torch.nn.functional.silu(x.double() @ gate.double().t()) * (x.double() @ up.double().t())
    assert (y.double() - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("atom", ["mma", "fma"])
def test_a_row_of_products_that_overlap_gives_what_they_give_one_after_the_other(atom):
    """Each reads what the last one wrote while its own weights are on their way already; replayed as a graph, often."""
    size, count = 1024, 12
    order = [torch.randperm(size, device="cuda") for _ in range(count)]
    weights = [
        torch.eye(size, device="cuda", dtype=torch.bfloat16)[p].contiguous() for p in order
    ]  # nothing is rounded
    values = [torch.zeros(1, size, device="cuda", dtype=torch.bfloat16) for _ in range(count + 1)]
    launches = [
        bound("matmul", {"a": values[n], "b": weights[n], "c": values[n + 1]}, (1, 4, 2, 2), atom, constant=("b",))
        for n in range(count)
    ]

    def run():
        for launch in launches:
            launch()

    replay = captured(run)
    for _ in range(100):
        values[0].copy_(torch.randn(1, size, device="cuda"))
        expected = values[0].clone()
        for p in order:
            expected = expected[:, p]
        replay()
        torch.cuda.synchronize()
        assert torch.equal(values[-1], expected)
