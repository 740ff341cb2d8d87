"""Row B5 of the list of capabilities, and the computation behind B6."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from programs import facts, traced

import tilewright as tw
from tilewright import Tensor
from tilewright.design.cost import estimate
from tilewright.design.cost.accuracy import accuracy
from tilewright.design.cost.gpu_memory import branch_divergence, sectors
from tilewright.design.cost.occupancy import BY_CAPABILITY, blocks_per_sm
from tilewright.design.cost.roofline import Roofline
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.machines.machine import Machine
from tilewright.runtime.work import work_of

ROOT = Path(__file__).parents[2]


@tw.kernel
def vector_add(a: Tensor["N"], b: Tensor["N"], c: Tensor["N"]):
    for i in tw.parallel("N"):
        c[i] = a[i] + b[i]


def test_B5_intensity_of_vector_add_is_one_twelfth():
    work = work_of(vector_add.trace({"a": "f32", "b": "f32", "c": "f32"}), {"N": 1000})
    assert work.flops / work.bytes == pytest.approx(1 / 12)


def test_B5_intensity_of_the_naive_matmul_is_about_a_quarter():
    """Every product loads both its operands: two operations for eight bytes, and the result once."""
    kernel = traced("matmul", activation=None)
    n = 512
    known = facts(kernel, "zen5", M=n, N=n, K=n)
    naive = estimate(kernel, Design.of({"tile.m": 1, "tile.n": 1, "tile.k": 1, "threads": 1}), known)
    # A scalar takes half a slot of a vector, and two slots a cycle multiply, two load.
    products, loads = naive.value("multiply") / 0.25, naive.value("load") / 0.25
    assert products == n**3
    assert 2 * products / (4 * loads + 4 * n * n) == pytest.approx(0.25, rel=0.01)


def test_B5_roofline_class():
    h200 = Machine.named("h200")
    peak, read = h200.peak("bf16"), h200.memory.read
    assert peak is not None and read is not None
    assert Roofline(2.0 * 4096**2, 2.0 * 4096**2, peak, read).bound == "memory"
    assert Roofline(2.0 * 8192**3, 6.0 * 8192**2, peak, read).bound == "compute"


def test_B5_occupancy_by_the_vendors_rules():
    with (ROOT / "tests" / "data" / "occupancy.csv").open() as file:
        for row in csv.DictReader(file):
            shape = (int(row["threads"]), int(row["regs"]), int(row["dyn_smem"]))
            assert blocks_per_sm(BY_CAPABILITY[row["cc"]], *shape) == int(row["blocks_per_sm"])


def test_B5_coalescing_and_divergence():
    assert sectors([4 * lane for lane in range(32)], 4) == 4
    assert sectors([4096 * lane for lane in range(32)], 4) == 32
    assert branch_divergence([lane % 2 == 0 for lane in range(32)]) == 0.5


def test_B5_a_users_kernel_has_an_estimate():
    kernel = vector_add.trace({"a": "f32", "b": "f32", "c": "f32"})
    known = Facts({"N": 1 << 26}, dict.fromkeys("abc", (0,)), Machine.named("zen5"))
    found = estimate(kernel, default_design(kernel, known), known)
    assert found.bound == "memory"
    assert found.value("memory bytes") * found.value("threads") == pytest.approx(12 * (1 << 26), rel=0.01)


@pytest.mark.parametrize("family", ["f32 matmul", "bf16 few rows", "rows"])
def test_B6_predictions_rank_what_was_measured(family):
    """Samples of this project's machines are kept with the results; the analytical model alone ranks each family."""
    data = json.loads((ROOT / "benchmarks" / "results" / "cost-samples-amd-25-17.json").read_text())
    machine = Machine.from_dict(data["machine"])
    predicted, measured = [], []
    for case in (c for c in data["cases"] if c["family"] == family):
        kernel = traced(
            case["operator"], case["dtype"], **({"activation": None} if case["operator"] == "matmul" else {})
        )
        tensors = [p for p in kernel.params if p.dims]
        known = Facts(case["sizes"], {p.name: (len(p.dims) - 1,) for p in tensors}, machine)
        for design, samples in zip(case["designs"], case["samples_ns"], strict=True):
            predicted.append(estimate(kernel, Design.from_json(json.dumps(design)), known).seconds)
            measured.append(min(samples) * 1e-9)
    assert len(measured) >= 200
    assert accuracy(predicted, measured).spearman >= 0.75
