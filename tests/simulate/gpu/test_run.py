"""Steps of models on described GPUs: times add up, follow the roofline where they should, and bad input is refused."""

from __future__ import annotations

import json

import pytest

from tilewright.errors import ArgumentError
from tilewright.machines.machine import Machine
from tilewright.simulate.gpu.run import simulate
from tilewright.simulate.simulation import Job, Simulation

GPUS = ("h200", "h100", "a100", "l40s", "rtx4090", "b200")


def step(machine: str = "h200", program: str = "llama-3.1-8b", **options: str) -> Simulation:
    return simulate(Job(program, Machine.named(machine), options=options))


@pytest.mark.parametrize("machine", GPUS)
@pytest.mark.parametrize("options", [{}, {"phase": "prefill", "context": "512"}])
def test_a_step_on_every_gpu_adds_up_and_is_no_faster_than_its_roofline(machine, options):
    found = step(machine, **options)
    assert sum(p.seconds for p in found.parts) == pytest.approx(found.seconds)
    assert sum(r.seconds for r in found.layers) < found.seconds
    assert 0 < found.number("share of the roofline") <= 1
    assert 0 < found.utilisation < 1
    json.dumps(found.to_json())


def test_decoding_one_sequence_moves_the_weights_and_the_cache():
    """Llama-3.1-8B at 4096 tokens: all weights but the embedding's table, and 0.54 GB of keys and values."""
    found = step(context="4096")
    weights = 2 * (8_030_261_248 - 128256 * 4096)
    cache = 4 * 4096 * 32 * 8 * 128
    assert found.number("bytes") == pytest.approx(weights + cache, rel=0.002)


def test_every_operator_has_its_time_bound_bytes_and_operations():
    rows = {r.program: r for r in step(batch="8").layers}
    up = rows["gate and up (gate_up)"]
    assert (up.number("calls"), up.number("bound")) == (32, "memory")
    assert up.number("operations of a call") == pytest.approx(2 * 2 * 8 * 14336 * 4096, rel=0.01)
    assert up.number("bytes of a call") == 2 * (2 * 14336 * 4096 + 8 * (4096 + 14336))
    assert up.seconds == pytest.approx(32 * up.number("seconds of a call"))


def test_launches_and_synchronisation_are_terms_of_their_own():
    graph, alone = step(), step(launch="alone")
    kernels = graph.number("kernels")
    assert kernels == 259
    parts = [{p.name: p.seconds for p in found.parts} for found in (graph, alone)]
    first = dict(Machine.named("h200").ceilings)["launch_s"]
    assert parts[0]["launches"] == pytest.approx(first + 258 * 1.08e-6)
    assert parts[1]["launches"] == pytest.approx(259 * first)
    assert parts[0]["synchronisation"] == pytest.approx(10e-6)
    assert parts[0]["qkv"] == parts[1]["qkv"]


def test_what_does_not_fit_is_said():
    assert step("rtx4090").number("fits the memory") is True
    assert step("rtx4090", batch="64", context="8192").number("fits the memory") is False


def test_a_prompt_has_the_context_that_it_needs():
    assert dict(step(phase="prefill", tokens="2048").sizes)["context"] == 2048
    assert dict(step(phase="prefill", tokens="16").sizes)["context"] == 1024


def test_an_operator_by_itself():
    found = simulate(Job("matmul", Machine.named("h200"), {"M": 512, "N": 4096, "K": 4096}))
    assert 20e-6 < found.seconds < 40e-6  # 27.4 us measured
    assert {p.name for p in found.parts} == {"tensor", "launch"}
    assert sum(p.seconds for p in found.parts) == pytest.approx(found.seconds)


@pytest.mark.parametrize(
    ("program", "options", "says"),
    [
        ("llama-3.1-9b", {}, "llama-3.1-8b"),
        ("llama-3.1-8b", {"bacth": "1"}, "batch"),
        ("llama-3.1-8b", {"batch": "0"}, "batch=1,8,64"),
        ("llama-3.1-8b", {"context": "many"}, "numbers from 1 on"),
        ("llama-3.1-8b", {"context": "200000"}, "131072"),
        ("llama-3.1-8b", {"phase": "prefil"}, "prefill"),
        ("llama-3.1-8b", {"launch": "stream"}, "graph"),
        ("llama-3.1-8b", {"tokens": "8"}, "phase=prefill"),
        ("llama-3.1-8b", {"phase": "prefill", "batch": "2"}, "batch=1"),
        ("llama-3.1-8b", {"phase": "prefill", "context": "512", "tokens": "2048"}, "context=2048"),
        ("matmul", {}, "needs the sizes"),
    ],
)
def test_bad_input_is_refused_with_the_fix(program, options, says):
    with pytest.raises(ArgumentError, match=says):
        step(program=program, **options)


def test_a_list_where_one_number_is_wanted_is_refused():
    with pytest.raises(ArgumentError, match="lists are for batch and context"):
        step(phase="prefill", context="64", tokens="8,16")
    with pytest.raises(ArgumentError, match="takes no sizes"):
        simulate(Job("llama-3.1-8b", Machine.named("h200"), {"M": 1}))
    with pytest.raises(ArgumentError, match="for models"):
        simulate(Job("matmul", Machine.named("h200"), {"M": 1, "N": 8, "K": 8}, options={"launch": "alone"}))


def test_a_users_program_runs_as_an_operator_does(tmp_path):
    text = "from tilewright.language import Tensor, kernel, parallel\n\n\n@kernel\n"
    text += "def twice(x: Tensor['M', 'D'], y: Tensor['M', 'D']):\n"
    text += "    for i, j in parallel('M', 'D'):\n        y[i, j] = x[i, j] * 2.0\n"
    (tmp_path / "own.py").write_text(text)
    found = simulate(Job(f"{tmp_path / 'own.py'}:twice", Machine.named("h200"), {"M": 4096, "D": 4096}))
    assert found.number("bytes of a call") == 2 * 2 * 4096 * 4096
    assert found.seconds > 2 * 4096 * 4096 / 4.26e12  # what it stores may stay in L2
