"""GPU terms against the vendor's rules and hand-computed cases, and estimates beside measured ones."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from programs import facts, traced

from tilewright.design.cost import estimate
from tilewright.design.cost.gpu import estimate_gpu, issue_cycles, joined, powered, usable
from tilewright.design.cost.gpu_memory import bank_passes, branch_divergence, coalescing, divergence, sectors
from tilewright.design.cost.gpu_rates import GpuRates, rates_of
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
    assert issue_cycles((64, 256, 16), 4096, 2, "wgmma") == 128
    assert issue_cycles((64, 8, 16), 4096, 2, "wgmma") == 18
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


PLAIN = Design.of({"tile.m": 128, "tile.n": 128, "tile.k": 64})
GATED = traced("gate_up", "bf16")


def with_ceilings(**ceilings: float) -> Machine:
    return replace(Machine.named("h200"), ceilings=tuple(ceilings.items()))


def test_ceilings_come_from_the_description_and_defaults_stand_in():
    stated = rates_of(with_ceilings(launch_s=1e-3, unheard_of=7.0))
    assert stated.launch_s == 1e-3
    assert stated.latency_s == GpuRates(1, 1, 1).latency_s
    assert rates_of(Machine.named("a100")).read == 2.04e12  # by the data sheet, as nothing was measured
    assert rates_of(Machine.named("h200")).copy == 4.26e12


def test_ceilings_are_part_of_a_description_and_not_of_its_fingerprint():
    machine = with_ceilings(launch_s=1e-3)
    assert Machine.from_json(machine.to_json()) == machine
    assert machine.fingerprint == Machine.named("h200").fingerprint


def test_power_lasts_for_a_while():
    rates = GpuRates(1e9, 1e12, 1e12, tensor_burst=0.8, tensor_sustained=0.5, burst_s=1.0)
    assert powered(0.4, rates) == pytest.approx(0.5)  # within the budget: the burst rate
    assert powered(0.8, rates) == pytest.approx(1.0)  # just used up
    assert powered(0.88, rates) == pytest.approx(1.2)  # what is over takes twice as long
    assert powered(8.0, rates) == pytest.approx(16.0)  # in the long run: the sustained rate


def test_what_two_dots_share_comes_once():
    known = facts(GATED, "h200", M=512, N=2048, K=2048)
    found = estimate(GATED, PLAIN, known)
    # Tiles of 128: x (512 rows) once for each of 16 columns of tiles, gate and up once for each of 4 rows of them.
    assert found.value("L2 bytes") == 2 * 2048 * (512 * 16 + 2 * 2048 * 4)


def test_parts_of_a_sum_in_a_cluster_are_joined_by_all_its_blocks():
    machine = with_ceilings(cluster_wait_s=0.0, grid_wait_s=0.0, join_bytes_per_s=1e9, grid_join_bytes_per_s=1e9)
    known = facts(MATMUL, machine, M=128, N=1024, K=16384)
    part = 4.0 * 128 * 128 / 1e9
    split = {"tile.m": 128, "tile.n": 128, "tile.k": 64, "split.k": 4}
    assert estimate(MATMUL, Design.of({**split, "how.k": "cluster"}), known).value("join") == pytest.approx(
        part * 3 / 4
    )
    assert estimate(MATMUL, Design.of({**split, "how.k": "two_pass"}), known).value("join") == pytest.approx(part * 3)


def test_results_wait_only_where_an_sm_has_nothing_else_to_do():
    machine = with_ceilings(partial_stores_per_s=1e9)
    tile = 128 * 128 / 8 / 1.83e9  # eight elements a request, a request a cycle
    long = Design.of({**dict(PLAIN.decisions), "stages": 6})  # 192 KiB of stages: one block for each SM

    def results(design: Design, n: int) -> float:
        return estimate(MATMUL, design, facts(MATMUL, machine, M=4096, N=n, K=4096)).value("results")

    rounds = -(-32 * 32 // 132)
    assert results(long, 4096) == pytest.approx(rounds * tile)
    assert results(PLAIN.with_(stages=2, atom__dot0="mma"), 4096) == pytest.approx(tile)
    by_engine = 128 * 128 * 2 / 128 / 1.83e9  # until it has the tile: 128 bytes a cycle to shared memory
    assert results(long.with_(persistent=True, store__c="tma"), 4096) == pytest.approx(rounds * by_engine)
    # Rows of odd length: four elements a request, and all SMs together no more than L2 joins with what it holds.
    odd = 132 * 128 * 128 / 4 / 1e9
    assert results(long, 4097) == pytest.approx(-(-32 * 33 // 132) * joined(2 * tile, odd))
    # With operands exchanged, eight lanes of a request lie side by side in a row, wherever it starts.
    assert results(long.with_(swap=True), 4097) == pytest.approx(-(-32 * 33 // 132) * tile)


def test_packing_is_a_kernel_for_each_operand():
    """Its blocks copy a row each, wait for what they load and store, and take turns: five of 256 threads on an SM.

    It relies on no alignment: a warp asks for 32 single elements of a tile at once, masked or not.
    """
    machine = with_ceilings(next_launch_s=1e-6, latency_s=2e-6, drain_s=3e-6)

    rows = Design.of({"tile.c": 4096, "tile.r": 1, "warps": 8})

    def packs(copies: Design | None = rows, **sizes: int) -> float:
        known = facts(MATMUL, machine, **sizes)
        return estimate_gpu(MATMUL, PLAIN.with_(pack__a="row"), known, copies=copies).value("packs")

    def beside(rows: int) -> float:
        return rates_of(machine).beside_cycles * (4096 / 32) * rows / 132 / 1.83e9

    moved = 2 * 2 * 660 * 1024 / 4.26e12
    assert packs(M=660, N=128, K=1024) == pytest.approx(1e-6 + 5e-6 + moved + beside(660), rel=0.01)
    assert packs(M=6600, N=128, K=64) == pytest.approx(1e-6 + 10 * 5e-6 + beside(6600), rel=0.01)
    assert packs(None, M=660, N=128, K=1024) >= 1e-6 + 5e-6 + moved  # the default design of the copy


def test_blocks_of_a_split_sum_lie_in_one_cluster_and_the_last_ones_wait():
    """128 blocks in clusters of four on 124 SMs: a ring of 16 stages leaves room for one block, of 10 for two."""
    known = facts(MATMUL, "h200", M=1, N=2048, K=8192)
    split = {
        "tile.m": 8,
        "tile.n": 64,
        "tile.k": 64,
        "split.k": 4,
        "how.k": "cluster",
        "swap": True,
        "producer": "warp",
    }
    two, one = (estimate(MATMUL, Design.of({**split, "warpgroups": 1, "stages": n}), known) for n in (10, 16))
    assert (two.value("blocks per SM"), one.value("blocks per SM")) == (2, 1)
    assert one.seconds - two.seconds > 2e-6  # 3.6 us measured
