"""What the sanitizer calls: every operator, and kernels of every kind that an H200 gets, by designs that are legal."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests" / "gpu")]

import gpu_programs
import sanitize_calls

from tilewright.design.default import default_design
from tilewright.design.legality import legal
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS

H200 = Machine.named("h200")
KINDS = {
    "atom": {"wgmma", "mma", "fma"}, "how": {"atomic", "two_pass", "cluster"}, "schedule": {"pingpong"},
    "engine": {"plain", "cp_async", "tma"}, "store": {"tma"}, "pack": {"row"},
}  # fmt: skip
"""Decisions that make kernels of different kinds, by what they begin with."""
SETS = {
    "split", "part", "keep", "early", "hold", "persistent", "drawn", "own", "cluster", "stages", "swap", "turns",
    "producer", "stagger", "resident",
}  # fmt: skip


def on_the_cpu(x):
    """A NumPy array as a torch tensor of this host."""
    x = np.ascontiguousarray(x)
    narrow = {"bfloat16": torch.bfloat16, "float8_e4m3fn": torch.float8_e4m3fn}.get(x.dtype.name)
    if narrow is None:
        return torch.from_numpy(x)
    return torch.from_numpy(x.view(np.int16 if narrow is torch.bfloat16 else np.int8)).view(narrow)


@pytest.fixture(scope="module")
def designs():
    """The design of each call as an H200 would run it; all of them are legal there."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_programs, "to_gpu", on_the_cpu)
        patch.setattr(gpu_programs, "machine", lambda device: H200)
        for name in (n for n in sanitize_calls.names() if n not in sanitize_calls.OPS):
            call, chosen = sanitize_calls.call_of(name)
            fixed = sanitize_calls.fixed_of(call) if chosen else ()
            kernel, facts, _ = gpu_programs.facts_of(call, gpu_programs.placed(call), fixed)
            found[name] = (chosen or default_design)(kernel, facts)
            assert legal(kernel, found[name], facts) == [], name
    return found


def test_every_operator_is_called():
    called = {name.partition(".")[0] for name in sanitize_calls.names()}
    assert set(OPERATORS) <= called


def test_kernels_of_every_kind_are_called(designs):
    decided = [pair for design in designs.values() for pair in design.decisions]
    for kind, values in KINDS.items():
        assert {v for name, v in decided if name.partition(".")[0] == kind} >= values, kind
    assert set().union(*map(kinds, designs.values())) >= SETS


def kinds(design):
    """What the decisions of a design that are set begin with."""
    return {name.partition(".")[0] for name, value in design.decisions if value}


def test_other_kernels_are_what_their_names_say(designs):
    for name, design in designs.items():
        family = name.partition(".")[0]
        if family == "chain":
            assert {atom for _, atom in design.prefixed("atom")} == {"wgmma"}, name
        if family == "decode":
            assert "part" in kinds(design), name
    assert "split" in kinds(designs["rows.long"]) & kinds(designs["rows.columns"])
    assert "hold" in kinds(designs["rows.rounds"]) and "split" not in kinds(designs["rows.short"])
