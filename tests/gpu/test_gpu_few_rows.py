"""Products of few rows on the GPU: tiles of fewer rows than the atom, and weights on their way some steps ahead."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from gpu_products import bound, check_gate_and_up, check_products_that_overlap, dealt, has_wgmma, unwritten, whole

SHORT = {"tile.k": 64, "warpgroups": 1, "stages": 4, "producer": "warp", "inflight": 0}
SIZES = [(1, 512, 2048), (4, 200, 1000), (16, 264, 328), (21, 136, 4096), (40, 77, 264)]


def short(**more):
    return lambda p, facts: {**SHORT, **more, **{f"atom.{d.name}": "wgmma" for d in p.dots}}


@pytest.mark.skipif(not has_wgmma(), reason="this GPU has no wgmma")
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
        a, b, c = whole("bf16", m, k), whole("bf16", n, k), unwritten(m, n)
        bound("matmul", {"a": a, "b": b, "c": c}, short(**decisions))()
        torch.cuda.synchronize()
        assert torch.equal(c, (a.double() @ b.double().t()).to(torch.bfloat16))

    @pytest.mark.parametrize("early", [{}, {"early.residual": True}, {"early.residual": True, "early.bias": True}])
    def test_rows_past_a_tile_are_not_read_by_what_follows_the_sums(self, early):
        a, b, bias, residual, c = (
            whole("bf16", 20, 512),
            whole("bf16", 136, 512),
            whole("bf16", 136),
            whole("bf16", 20, 136),
            unwritten(20, 136),
        )
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
    a, b, c = whole("bf16", m, k), whole("bf16", n, k), unwritten(m, n)
    bound("matmul", {"a": a, "b": b, "c": c}, dealt(*deal, stages=stages))()
    torch.cuda.synchronize()
    assert torch.equal(c, (a.double() @ b.double().t()).to(torch.bfloat16))


@pytest.mark.parametrize("atom", ["mma", "fma"])
def test_gate_and_up_are_both_on_their_way(atom):
    check_gate_and_up(dealt(1, 4, 1, 1, atom, stages=3))


@pytest.mark.parametrize("atom", ["mma", "fma"])
def test_constant_weights_come_before_the_last_kernel_has_ended_and_x_after_it(atom):
    check_products_that_overlap(dealt(1, 4, 2, 1, atom, stages=3), 50)
