"""Stalls behind scratchpads of limited size and bandwidth: runs of SCALE-Sim 3.0.0."""

from __future__ import annotations

import pytest

from tilewright.errors import ArgumentError
from tilewright.machines import Machine
from tilewright.simulate.kinds import simulate
from tilewright.simulate.simulation import Job

from .arrays import SCALESIM

LIMITED = [r for r in SCALESIM if r["mode"] == "USER"]


def cycles(rows, columns, flow, m, n, k, pads):
    machine = Machine.named(f"systolic:{rows}x{columns}:{flow}")
    told = simulate(Job("matmul", machine, {"M": m, "N": n, "K": k}, options={"scratchpads": pads, "values": "no"}))
    assert sum(p.seconds for p in told.parts) == pytest.approx(told.seconds)
    return told.cycles, told.number("stalls"), 100 * (told.utilisation or 0)


@pytest.mark.parametrize("row", LIMITED, ids=lambda r: r["df"])
def test_every_run_with_limited_bandwidth(row):
    """The file's runs have 64 KiB for each operand and for the results, and 10 elements a cycle."""
    found = cycles(*(int(row[x]) for x in "RC"), row["df"], *(int(row[x]) for x in "MNK"), f"64x{row['bw']}")
    assert found[:2] == (int(row["total_cycles"]), int(row["stall"]))
    assert found[2] == pytest.approx(float(row["overall_util"]), abs=0.01)


# Runs of the same tool that are not in the file: ragged folds, other sizes, other rates.
@pytest.mark.parametrize(
    ("array", "flow", "product", "pads", "total", "stall"),
    [
        ((32, 32), "ws", (256, 128, 256), "64x10", 52_447, 41_248),
        ((32, 32), "ws", (200, 300, 400), "64x10", 113_544, 75_325),
        ((16, 64), "os", (200, 300, 400), "64x10", 327_857, 296_788),
        ((32, 32), "is", (100, 300, 400), "16x20", 72_519, 52_032),
        ((32, 32), "ws", (100, 300, 400), "16x5", 937_355, 912_136),
    ],
)
def test_other_runs_of_the_tool(array, flow, product, pads, total, stall):
    assert cycles(*array, flow, *product, pads)[:2] == (total, stall)


def test_large_scratchpads_never_stall():
    assert cycles(32, 32, "is", 256, 128, 256, "1024x10")[:2] == (14_207, 0)


@pytest.mark.parametrize("wrong", ["64", "0x10", "64x-1"])
def test_impossible_scratchpads_are_refused(wrong):
    with pytest.raises(ArgumentError, match="write KIBxELEMENTS"):
        cycles(8, 8, "ws", 8, 8, 8, wrong)
