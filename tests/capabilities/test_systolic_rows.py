"""Row D4 of the list of capabilities: systolic arrays, with values and cycles, and utilisation against batch."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tilewright import cli
from tilewright.design.default import default_design
from tilewright.machines import Machine
from tilewright.simulate.simulation import Job
from tilewright.simulate.systolic.judge import planned, subject_on, verified
from tilewright.simulate.systolic.run import BATCHES, batches


@pytest.mark.parametrize("dtype", ["i8", "bf16"])
@pytest.mark.parametrize("flow", ["ws", "os", "is"])
def test_D4_values_and_cycles_of_every_dataflow(flow, dtype):
    """Ragged on every axis; values against the operator's reference, cycles against the closed form."""
    subject = subject_on(Machine.named(f"systolic:12x7:{flow}"), "matmul", {"M": 37, "N": 23, "K": 41}, dtype)
    design = default_design(subject.kernel, subject.facts)
    plan = planned(subject, design)[1]
    folds = {"ws": 4 * 4, "os": 4 * 4, "is": 4 * 6}[flow]
    cycles = {"ws": 24 + 7 + 37 - 2, "os": 12 + 7 + 41 - 2, "is": 24 + 7 + 23 - 2}[flow]
    assert (plan.flow, plan.folds) == (flow, folds)
    assert verified(subject, design) == folds * cycles - 1


def test_D4_utilisation_against_batch():
    job = Job("matmul", Machine.named("tpu-v1"), {"M": 1, "N": 1024, "K": 1024})
    (line,) = batches(job).series
    used = dict(zip(line.x, line.y, strict=True))
    assert tuple(used) == tuple(map(float, BATCHES)) and list(used.values()) == sorted(used.values())
    # Below the ridge of 1349 rows the fetch of a tile bounds: twice the batch is twice the use of the array.
    assert used[256.0] / used[128.0] == pytest.approx(2.0, rel=0.02)
    assert used[4096.0] > 95.0


def test_D4_the_command_prints_and_draws(tmp_path):
    words = ["simulate", "matmul", "M=64", "N=48", "K=40", "--machine", "systolic:16x16:ws:bandwidth=4", "--json"]
    ran = CliRunner().invoke(cli.app, [*words, "--plot", str(tmp_path / "out.html")])
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert told["cycles"] == pytest.approx(sum(p["cycles"] for p in told["parts"]))
    assert told["numbers"]["stalls"]["value"] > 0
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "utilisation against batch" in page and page.count("data:image/png") == 2 and len(page) < 100_000
