"""GPUs of a host: which description serves which model, and what is said where there is none."""

from __future__ import annotations

import pytest

from tilewright.errors import MachineError
from tilewright.machines import Machine, nvidia
from tilewright.machines.nvidia_driver import driver


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


@pytest.mark.parametrize("answer", ["absent", "CUDA_ERROR_NO_DEVICE"])
def test_a_driver_that_is_absent_or_does_not_start_is_a_machine_error_with_a_fix(monkeypatch, answer):
    cuda = pytest.importorskip("cuda.bindings.driver")

    def init(flags):
        if answer == "absent":
            raise RuntimeError("libcuda.so.1: cannot open shared object file")
        return (getattr(cuda.CUresult, answer),)

    monkeypatch.setattr(cuda, "cuInit", init)
    says = "libcuda.so.1.*; install one, or run on the cpu" if answer == "absent" else f"{answer}.*; check it with"
    with pytest.raises(MachineError, match=says):
        driver.__wrapped__()


@pytest.mark.parametrize(("capability", "made"), [(70, False), (75, False), (80, True), (86, True), (90, True)])
def test_kernels_are_made_for_ampere_and_later(capability, made):
    said = nvidia.unsupported("a card", capability)
    assert (said == "") == made
    assert made or f"a card has compute capability {capability / 10}, and 8.0 (Ampere) is the least; take " in said
