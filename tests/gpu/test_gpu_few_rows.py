"""Products of few rows on the GPU: tiles of fewer rows than the atom, and weights on their way some steps ahead."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
from tilewright.design.design import Design  # noqa: E402
from tilewright.design.gpu.product import product  # noqa: E402
from tilewright.design.gpu.straight import straight  # noqa: E402
from tilewright.design.legality import legal  # noqa: E402
from tilewright.errors import MachineError  # noqa: E402
from tilewright.operators import OPERATORS  # noqa: E402
from tilewright.runtime.buffer import Buffer  # noqa: E402
from tilewright.runtime.cuda.dispatch import facts_of, loaded, machine, requested  # noqa: E402
from tilewright.runtime.cuda.kernel import layout_on_gpu  # noqa: E402
from tilewright.runtime.cuda.measure import captured  # noqa: E402
from tilewright.runtime.dispatch import Program  # noqa: E402

SHORT = {"tile.k": 64, "warpgroups": 1, "stages": 4, "producer": "warp", "inflight": 0}
SIZES = [(1, 512, 2048), (4, 200, 1000), (16, 264, 328), (21, 136, 4096), (40, 77, 264)]


def whole(*shape):
    """Small whole numbers: every product and sum is exact."""
    return torch.randint(-4, 5, shape, device="cuda").bfloat16()


def unwritten(*shape):
    return torch.full(shape, float("nan"), device="cuda", dtype=torch.bfloat16)


def bound(operator, tensors, decide, constant=(), options=None):
    """A launch of a product by the design that `decide` makes of it and its facts, whose legality is asserted."""
    kernel = OPERATORS[operator].kernel.trace(dict.fromkeys(tensors, "bf16"), options=options or {})
    buffers = {n: replace(Buffer.of(x), writable=n not in constant) for n, x in tensors.items()}
    layouts = tuple((p.name, layout_on_gpu(buffers[p.name])) for p in kernel.params)
    sizes = {d: n for p in kernel.params for d, n in zip(p.dims or (), buffers[p.name].shape, strict=True)}
    facts = facts_of(layouts, sizes, machine(0), sizes)
    design = Design.of(decide(product(kernel), facts))
    assert legal(kernel, design, facts) == []
    request = requested(Program.of(kernel), layouts, sizes, machine(0), design, tuple(sizes))
    return loaded(request, 0).bind(buffers, {}, sizes)


def short(**more):
    return lambda p, facts: {**SHORT, **more, **{f"atom.{d.name}": "wgmma" for d in p.dots}}


def ahead(*deal, **more):
    return lambda p, facts: {**dict(straight(p, facts, *deal).decisions), **more}


def _has_wgmma():
    try:
        return any(a.name.startswith("wgmma") for a in machine(0).atoms)
    except MachineError:
        return False


@pytest.mark.skipif(not _has_wgmma(), reason="this GPU has no wgmma")
class TestTilesOfFewerRowsThanTheAtom:
    @pytest.mark.parametrize("decisions", [
        {"tile.m": 8, "tile.n": 48}, {"tile.m": 16, "tile.n": 104, "tile.k": 128}, {"tile.m": 40, "tile.n": 256},
        {"tile.m": 16, "tile.n": 24, "swap": True}, {"tile.m": 24, "tile.n": 56, "swap": True, "inflight": 1},
        {"tile.m": 16, "tile.n": 64, "cluster.n": 2}, {"tile.m": 32, "tile.n": 64, "persistent": True},
        {"tile.m": 16, "tile.n": 32, "split.k": 2, "how.k": "cluster"},
        {"tile.m": 16, "tile.n": 112, "tile.k": 128, "box.b": 8, "stages": 3},
        {"tile.m": 16, "tile.n": 64, "tile.k": 256, "swap": True, "box.b": 16, "box.a": 8, "stages": 3},
    ])  # fmt: skip
    @pytest.mark.parametrize("size", SIZES)
    def test_every_element_is_written_and_no_other(self, decisions, size):
        m, n, k = size
        a, b, c = whole(m, k), whole(n, k), unwritten(m, n)
        bound("matmul", {"a": a, "b": b, "c": c}, short(**decisions))()
        torch.cuda.synchronize()
        assert torch.equal(c, (a.double() @ b.double().t()).to(torch.bfloat16))

    @pytest.mark.parametrize("early", [{}, {"early.residual": True}, {"early.residual": True, "early.bias": True}])
    def test_rows_past_a_tile_are_not_read_by_what_follows_the_sums(self, early):
        a, b, bias, residual, c = whole(20, 512), whole(136, 512), whole(136), whole(20, 136), unwritten(20, 136)
        tensors = {"a": a, "b": b, "c": c, "bias": bias, "residual": residual}
        bound("matmul", tensors, short(**{"tile.m": 8, "tile.n": 48, **early}), options={"activation": "relu"})()
        torch.cuda.synchronize()
        exact = (a.double() @ b.double().t() + bias.double()).clamp(min=0) + residual.double()
        assert torch.equal(c, exact.to(torch.bfloat16))


@pytest.mark.parametrize("deal", [
    (1, 8, 1, 2, "mma"), (2, 4, 2, 1, "mma"), (1, 2, 4, 4, "mma"), (1, 4, 2, 1, "fma"), (2, 2, 2, 1, "fma"),
])  # fmt: skip
@pytest.mark.parametrize("stages", [2, 5])
@pytest.mark.parametrize("size", SIZES[:3])
def test_weights_on_their_way_arrive_in_time(deal, stages, size):
    m, n, k = size
    if deal[-1] == "fma" and m > 4:
        m = 3
    a, b, c = whole(m, k), whole(n, k), unwritten(m, n)
    bound("matmul", {"a": a, "b": b, "c": c}, ahead(*deal, stages=stages))()
    torch.cuda.synchronize()
    assert torch.equal(c, (a.double() @ b.double().t()).to(torch.bfloat16))


@pytest.mark.parametrize("atom", ["mma", "fma"])
def test_gate_and_up_are_both_on_their_way(atom):
    x, gate, up, y = whole(2, 2048), whole(96, 2048), whole(96, 2048), unwritten(2, 96)
    x, gate, up = x / 8, gate / 64, up / 64
    bound("gate_up", {"x": x, "gate": gate, "up": up, "y": y}, ahead(1, 4, 1, 1, atom, stages=3))()
    torch.cuda.synchronize()
    exact = torch.nn.functional.silu(x.double() @ gate.double().t()) * (x.double() @ up.double().t())
    assert (y.double() - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("atom", ["mma", "fma"])
def test_constant_weights_come_before_the_last_kernel_has_ended_and_x_after_it(atom):
    """Each product reads what the last one wrote while its own weights are on their way; replayed as a graph, often."""
    size, count = 1024, 12
    order = [torch.randperm(size, device="cuda") for _ in range(count)]
    weights = [torch.eye(size, device="cuda", dtype=torch.bfloat16)[p].contiguous() for p in order]
    values = [torch.zeros(1, size, device="cuda", dtype=torch.bfloat16) for _ in range(count + 1)]
    launches = [
        bound("matmul", {"a": a, "b": b, "c": c}, ahead(1, 4, 2, 1, atom, stages=3), constant=("b",))
        for a, b, c in zip(values, weights, values[1:], strict=False)
    ]

    def run():
        for launch in launches:
            launch()

    replay = captured(run)
    for _ in range(50):
        values[0].copy_(torch.randn(1, size, device="cuda"))
        expected = values[0].clone()
        for p in order:
            expected = expected[:, p]
        replay()
        torch.cuda.synchronize()
        assert torch.equal(values[-1], expected)
