"""GPU terms against the vendor's rules and hand-computed cases, and estimates beside measured ones."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from programs import facts, traced

from tilewright.design.cost import estimate
from tilewright.design.cost.gpu import issue_cycles, joined, usable
from tilewright.design.cost.gpu_memory import bank_passes, branch_divergence, coalescing, divergence, sectors
from tilewright.design.cost.occupancy import BY_CAPABILITY, blocks_per_sm, limits_of
from tilewright.design.cost.roofline import Roofline
from tilewright.design.cost.waves import Waves, pipeline_cycles
from tilewright.design.design import Design
from tilewright.machines.machine import Machine

GOLDEN = Path(__file__).parents[2] / "data" / "occupancy.csv"
MATMUL = traced("matmul", "bf16", activation=None)


def test_occupancy_matches_the_vendor_on_every_row():
    with GOLDEN.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3000
    for row in rows:
        threads = int(row["threads"])
        blocks = blocks_per_sm(BY_CAPABILITY[row["cc"]], threads, int(row["regs"]), int(row["dyn_smem"]))
        assert blocks == int(row["blocks_per_sm"]), row
        assert blocks * -(-threads // 32) == int(row["warps_per_sm"]), row


def test_occupancy_where_naive_division_is_wrong():
    hopper = BY_CAPABILITY["9.0"]
    assert limits_of(Machine.named("h200")) == hopper
    assert blocks_per_sm(hopper, 224, 96, 0) == 2
    assert blocks_per_sm(hopper, 96, 200, 0) == 2


def test_sectors():
    assert sectors([4 * n for n in range(32)], 4) == 4
    assert sectors([128 * n for n in range(32)], 4) == 32
    assert sectors([16 * n for n in range(32)], 16) == 16
    assert sectors([4 * n + 4 for n in range(32)], 4) == 5  # one word past the line
    assert sectors([0] * 32, 4) == 1
    assert coalescing([4 * n for n in range(32)], 4) == 1
    assert coalescing([128 * n for n in range(32)], 4) == 1 / 8


def test_banks():
    assert bank_passes([4 * n for n in range(32)], 4) == 1
    assert bank_passes([8 * n for n in range(32)], 4) == 2
    assert bank_passes([128 * n for n in range(32)], 4) == 32
    assert bank_passes([132 * n for n in range(32)], 4) == 1  # padded by a word
    assert bank_passes([0] * 32, 4) == 1
    assert bank_passes([16 * n for n in range(32)], 16) == 4


def test_idle_lanes():
    assert divergence(96, 80) == pytest.approx(1 - 80 / 96)
    assert divergence(33, 33) == pytest.approx(1 - 33 / 64)
    assert branch_divergence([n < 16 for n in range(32)]) == 0.5
    assert branch_divergence([True] * 32) == 0


def test_waves():
    assert Waves(132, 132).count == 1
    assert Waves(133, 132).count == 2
    assert Waves(133, 132).efficiency == pytest.approx(133 / 264)


def test_pipeline_fill():
    assert pipeline_cycles(10, 1, 3, 5) == 80
    assert pipeline_cycles(10, 2, 3, 5) == 3 + 9 * 5 + 5
    assert pipeline_cycles(0, 2, 3, 5) == 0


def test_roofline_class():
    small, large = Roofline(1e9, 1e9, 989e12, 4.42e12), Roofline(1e15, 1e9, 989e12, 4.42e12)
    assert (small.bound, large.bound) == ("memory", "compute")
    assert small.seconds == pytest.approx(1e9 / 4.42e12)


def test_tensor_cores_wait_for_shared_memory_below_64_columns():
    # 64 x 256 x 16: 128 cycles at 4096 flop a cycle, 80 to read (64 + 256) * 32 bytes. 64 x 8 x 16: 4 and 18.
    assert issue_cycles((64, 256, 16), 4096, 2, "wgmma") == joined(128, 80)
    assert issue_cycles((64, 8, 16), 4096, 2, "wgmma") == joined(4, 18)
    assert issue_cycles((16, 8, 16), 4096, 2, "mma") == 1


def test_streams_that_overlap_take_as_long_as_the_longest_or_a_little_more():
    assert joined(3.0) == 3.0
    assert joined(2.0, 2.0) == pytest.approx(2.0 * 2**0.25)
    assert 10.0 < joined(10.0, 1.0) < 10.001


def test_large_clusters_leave_sms_idle():
    assert (usable(132, 1), usable(132, 2)) == (132, 132)
    assert usable(132, 4) == 124
    assert usable(132, 8) == 120


def best(m: int, n: int, k: int) -> float:
    """Microseconds of the best of a few designs on an H200."""
    known = facts(MATMUL, "h200", M=m, N=n, K=k)
    designs = [
        Design.of({"tile.m": tm, "tile.n": tn, "tile.k": 64, "stages": 4, "split.k": s})
        for tm, tn in ((64, 64), (64, 128), (128, 128), (128, 256))
        for s in (1, 2, 4)
    ]
    return 1e6 * min(estimate(MATMUL, d, known).seconds for d in designs)


@pytest.mark.parametrize(
    ("n", "k", "cublas"),
    [
        (4096, 4096, (19.6, 18.0, 29.7, 346)),
        (28672, 4096, (68.8, 70.8, 158, 2622)),
        (8192, 28672, (123, 132, 323, 5445)),
    ],
)
def test_estimates_lie_near_what_cublas_takes_on_an_h200(n, k, cublas):
    for m, measured in zip((1, 64, 512, 8192), cublas, strict=True):
        assert 0.5 < best(m, n, k) / measured < 1.5


def test_decisions_have_the_effect_they_should():
    known = facts(MATMUL, "h200", M=128, N=1024, K=16384)
    one = Design.of({"tile.m": 128, "tile.n": 128, "tile.k": 64})
    assert estimate(MATMUL, one.with_(split__k=8), known).seconds < estimate(MATMUL, one, known).seconds
    assert estimate(MATMUL, one.with_(stages=1), known).seconds > estimate(MATMUL, one, known).seconds
    wide = facts(MATMUL, "h200", M=4096, N=4096, K=4096)
    clustered = estimate(MATMUL, one.with_(cluster__m=2), wide)
    assert clustered.value("L2 bytes") == pytest.approx(0.75 * estimate(MATMUL, one, wide).value("L2 bytes"))
