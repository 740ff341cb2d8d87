"""GPUs of a host: which description serves which model, and what is said where there is none."""

from __future__ import annotations

import pytest

from tilewright.errors import MachineError
from tilewright.machines import Machine, nvidia


@pytest.mark.parametrize(
    ("name", "capability", "model"),
    [
        ("NVIDIA H200", 90, "h200"),
        ("NVIDIA H100 80GB HBM3", 90, "h100"),
        ("NVIDIA A100-SXM4-80GB", 80, "a100"),
        ("NVIDIA L40S", 89, "l40s"),
        ("NVIDIA GeForce RTX 4090", 89, "rtx4090"),
        ("NVIDIA B200", 100, "b200"),
        ("NVIDIA GH200 480GB", 90, "h100"),  # no description of its own: the nearest of its capability
        ("NVIDIA A10", 86, "a100"),
        ("NVIDIA RTX 6000 Ada Generation", 89, "l40s"),
    ],
)
def test_a_model_is_known_by_its_name_or_its_capability(name, capability, model):
    assert nvidia.model_of(name, capability) == model


def test_every_model_is_described():
    for _, name in (*nvidia._MODELS, *nvidia._FAMILIES):
        assert Machine.named(name).kind == "nvidia"


def test_remembered_bandwidths_are_those_of_the_machine(monkeypatch):
    h200 = Machine.named("h200")
    monkeypatch.setattr(nvidia._store, "load", lambda name: {"read": 4.1e12, "copy": 4.0e12})
    assert nvidia.with_rates(h200).memory.read == 4.1e12
    assert nvidia.with_rates(h200).fingerprint == h200.fingerprint
    for damaged in (None, {}, {"read": "fast", "copy": 1.0}, {"read": -1.0, "copy": 1.0}):
        monkeypatch.setattr(nvidia._store, "load", lambda name, found=damaged: found)
        assert nvidia.with_rates(h200) == h200


def test_an_absent_driver_is_a_machine_error_with_a_fix():
    try:
        nvidia.devices()
    except MachineError as error:
        assert "install" in str(error) or "nvidia-smi" in str(error)
