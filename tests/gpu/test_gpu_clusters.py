"""Blocks of a cluster that share what they read: thousands of short ones, each of which leaves as early as it may."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
sys.path.append(str(Path(__file__).parent))

from gpu_products import bound, unwritten, whole

from tilewright.runtime.cuda.measure import captured

LAUNCHES = 60
SHORT = {"atom.dot0": "wgmma", "warpgroups": 1, "producer": "warp", "tile.n": 16, "tile.k": 64, "stages": 4}


@pytest.mark.parametrize("inflight", [0, 1])
@pytest.mark.parametrize(
    ("rows", "more"),
    [
        (128, {"tile.m": 16, "cluster.m": 2}),
        (128, {"tile.m": 64, "cluster.m": 2}),
        (16, {"tile.m": 16, "cluster.n": 2}),
        (128, {"tile.m": 64, "cluster.m": 2, "persistent": True}),
    ],
    ids=["rows of 16", "rows of 64", "columns", "blocks that stay"],
)
def test_nobody_leaves_while_others_may_signal(rows, more, inflight):
    """A signal to a block that has gone is an error of the device; whether it happens is chance: many blocks, often."""
    n, k = 28672, 256
    a, b, c = whole("bf16", rows, k), whole("bf16", n, k), unwritten(rows, n)
    launch = bound("matmul", {"a": a, "b": b, "c": c}, lambda p, facts: {**SHORT, **more, "inflight": inflight})

    def run():
        for _ in range(LAUNCHES):
            launch()

    replay = captured(run)
    c.fill_(float("nan"))
    replay()
    torch.cuda.synchronize()
    assert torch.equal(c, (a.float() @ b.float().t()).to(torch.bfloat16))
