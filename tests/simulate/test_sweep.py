"""Sweeps over batch and context, on every kind of machine: points, lines, and what is refused."""

from __future__ import annotations

import pytest

from tilewright.errors import ArgumentError
from tilewright.machines.machine import Machine
from tilewright.simulate.kinds import simulate
from tilewright.simulate.simulation import Job, Simulation
from tilewright.simulate.sweep import each, numbers


def job(program: str, machine: str = "h200", sizes: dict[str, int] | None = None, chips: int = 1, **said: str) -> Job:
    return Job(program, Machine.named(machine), sizes or {}, chips=chips, options=said)


def swept(*args, **options) -> Simulation:
    return simulate(job(*args, **options))


def test_one_job_for_each_batch_and_context():
    found = each(job("llama-3.1-8b", batch="1,8", context="1024,8192", launch="alone"))
    assert [(j.options["batch"], j.options["context"]) for j in found] == [
        ("1", "1024"), ("1", "8192"), ("8", "1024"), ("8", "8192"),
    ]  # fmt: skip
    assert all(j.options["launch"] == "alone" for j in found)
    assert each(job("llama-3.1-8b")) == [job("llama-3.1-8b")]


def test_the_batch_of_an_operator_is_its_rows():
    found = each(job("matmul", sizes={"N": 8, "K": 8}, batch="2,4"))
    assert [dict(j.sizes)["M"] for j in found] == [2, 4]
    assert not any(j.options for j in found)


@pytest.mark.parametrize("machine, chips", [("h200", 1), ("h200", 8), ("sn40l", 8)])
def test_a_model_has_a_line_for_each_context(machine, chips):
    found = swept("llama-3.1-8b", machine, None, chips, batch="1,8,64", context="1024,8192")
    assert [dict(s.sizes)["batch"] for s in found.layers] == [1, 1, 8, 8, 64, 64]
    assert found.seconds == pytest.approx(sum(s.seconds for s in found.layers))
    assert found.charts[0].y == "tokens per second"
    lines = {s.name: s for s in found.charts[0].series}
    assert lines["context 1024"].x == (1, 8, 64)
    assert lines["context 1024"].y[0] == pytest.approx(1 / found.layers[0].seconds)
    assert all(a > b for a, b in zip(lines["context 1024"].y, lines["context 8192"].y, strict=True))
    assert found.number("tokens per second, batch 8, context 8192") == lines["context 8192"].y[1]


def test_a_context_alone_is_drawn_along_it():
    chart = swept("llama-3.1-8b", context="1024,4096").charts[0]
    assert chart.x == "context" and chart.series[0].x == (1024, 4096)


@pytest.mark.parametrize("machine", ["tpu-v1", "systolic:32x32:os", "sn40l", "h200"])
def test_an_operator_is_drawn_by_the_share_of_the_peak(machine):
    found = swept("matmul", machine, {"N": 512, "K": 512}, batch="1,16,256")
    assert found.charts[0].y == "share of the peak"
    (line,) = found.charts[0].series
    assert line.x == (1, 16, 256) and list(line.y) == sorted(line.y)
    assert [p.name for p in found.parts] == ["batch 1", "batch 16", "batch 256"]


def test_one_batch_is_no_sweep():
    found = swept("matmul", "h200", {"N": 512, "K": 512}, batch="16")
    assert dict(found.sizes)["M"] == 16 and not found.layers


@pytest.mark.parametrize("text", ["", "0", "1,", "1,x", "-1", "1.5"])
def test_lists_that_are_none_are_refused(text):
    with pytest.raises(ArgumentError, match="write batch=1,8,64"):
        numbers("batch", text)


def test_what_has_no_batch_or_context_says_so():
    with pytest.raises(ArgumentError, match="no dimension M or B"):
        swept("embedding", "h200", {"N": 4, "V": 10, "D": 8}, batch="1,2")
    with pytest.raises(ArgumentError, match="context is of models"):
        swept("matmul", "h200", {"N": 4, "K": 10}, context="1,2")
    with pytest.raises(ArgumentError, match="holds 131072 tokens"):
        swept("llama-3.1-8b", "sn40l", None, 8, context="1024,200000")
    with pytest.raises(ArgumentError, match="an array multiplies matrices"):
        swept("llama-3.1-8b", "tpu-v1")
