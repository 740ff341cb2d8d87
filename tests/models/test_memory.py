"""Where models run: names of devices, and what each error says."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.engine.llm import LLM
from tilewright.errors import ArgumentError, MachineError
from tilewright.machines import nvidia
from tilewright.models.memory import HOST, memory_of


def test_the_host():
    assert memory_of("cpu") is HOST
    assert not HOST.remote


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:x", "cuda:-1", ""])
def test_names_that_are_none(name):
    with pytest.raises(ArgumentError, match="choose cpu, cuda, or cuda:N for GPU number N"):
        memory_of(name)


def test_a_gpu_that_is_not_there(monkeypatch):
    def nothing(device):
        raise MachineError("no NVIDIA driver can be loaded (...); install one, or run on the cpu")

    monkeypatch.setattr(nvidia, "detect", nothing)
    with pytest.raises(MachineError, match="run on the cpu"):
        LLM(device="cuda:7")


def test_arrays_of_the_host_are_reused():
    flat = HOST.empty((64,), np.int8)
    again = HOST.reuse(flat, (2, 4), np.float32)
    again[...] = 7
    assert np.shares_memory(flat, again)
    assert HOST.read(again) is again
    assert HOST.landing().read(again) is again
    letter = HOST.mailbox([again]).post()
    HOST.put(again, 8)
    assert letter.read()[0].tolist() == [[7] * 4] * 2
