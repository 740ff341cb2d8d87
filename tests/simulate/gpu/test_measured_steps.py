"""Whole steps of decoding by the model, beside those that an H200 took as one graph."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilewright.machines.machine import Machine
from tilewright.simulate.kinds import simulate
from tilewright.simulate.simulation import Job

PROBES = Path(__file__).parents[3] / "benchmarks" / "results" / "probes"
MODELS = {"8B": "llama-3.1-8b", "1B": "llama-3.2-1b"}
MEAN, WORST = 0.06, 0.18


def steps():
    for path in sorted(PROBES.glob("llama-step-*-h200.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        yield MODELS[found["model"]], found["batch"], found["step_us"] * 1e-6


def off(machine):
    errors = []
    for model, batch, measured in steps():
        said = simulate(Job(model, machine, options={"batch": str(batch), "context": "512"})).seconds
        errors.append(abs(said / measured - 1))
    return errors


def test_whole_steps_are_as_long_as_measured():
    """No rate was fitted to them; sampling is no part of the model's step."""
    errors = off(Machine.named("h200"))
    assert len(errors) == 4
    assert sum(errors) / len(errors) <= MEAN
    assert max(errors) <= WORST


def test_a_start_that_took_a_microsecond_more_would_be_seen():
    h200 = Machine.named("h200")
    slow = Machine.from_dict({**h200.to_dict(), "ceilings": {**dict(h200.ceilings), "next_launch_s": 3e-6}})
    assert sum(off(slow)) / 4 > 2 * MEAN


@pytest.mark.parametrize("batch", [1, 16])
def test_most_of_a_step_is_weights(batch):
    found = simulate(Job("llama-3.1-8b", Machine.named("h200"), options={"batch": str(batch), "context": "512"}))
    weights = {"qkv", "output", "gate and up", "down", "head"}
    assert sum(p.seconds for p in found.parts if p.name in weights) > 0.7 * found.seconds
