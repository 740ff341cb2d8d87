"""What simulations are made of: facts apart from assumptions, and plain data."""

from __future__ import annotations

import json

import pytest

from tilewright.machines.machine import Machine
from tilewright.simulate.simulation import Part, Simulation, notes_of


def test_what_a_description_assumes_is_told_from_what_is_published():
    facts, assumed = notes_of(Machine.named("sn40l"))
    assert any("638 TFLOP/s" in text for text in facts) and any("32 lanes" in text for text in assumed)
    assert not any(text.startswith("Assumed") for text in (*facts, *assumed))


def test_json_holds_both():
    told = Simulation("p", "m", (("M", 2),), 1.0, parts=(Part("all", 1.0),), assumptions=("a",), facts=("f",))
    data = json.loads(json.dumps(told.to_json()))
    assert data["assumptions"] == ["a"] and data["facts"] == ["f"]
    with pytest.raises(KeyError):
        told.number("none")
