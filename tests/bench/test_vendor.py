"""What torch's users write gives what the operators' references give, on the same operands."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tilewright.bench import vendor
from tilewright.bench.designed import operand_sets
from tilewright.bench.vendor import aligned, tensors_of, vendor_of
from tilewright.machines.machine import Machine
from tilewright.runtime.checks import expected
from tilewright.runtime.inputs import draw
from tilewright.runtime.subject import Subject
from tilewright.runtime.work import Work

MACHINE = Machine.named("x86-avx512")
SIZES = {
    "matmul": {"M": 5, "N": 7, "K": 9},
    "gate_up": {"M": 5, "N": 7, "K": 9},
    "batched_matmul": {"B": 2, "M": 5, "N": 7, "K": 9},
    "rmsnorm": {"M": 5, "D": 32},
    "add_rmsnorm": {"M": 5, "D": 32},
    "layernorm": {"M": 5, "D": 32},
    "softmax": {"M": 5, "D": 32},
    "silu": {"M": 5, "D": 32},
    "gelu": {"M": 5, "D": 32},
    "swiglu": {"M": 5, "D": 32},
    "scale_add": {"M": 5, "D": 32},
    "rope": {"B": 2, "S": 6, "H": 3, "R": 8, "P": 6},
    "attention": {"B": 2, "H": 2, "G": 3, "S": 6, "T": 6, "D": 16, "E": 16},
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_the_expression_computes_the_same(name: str, dtype: str):
    subject = Subject.of(name, SIZES[name], dtype, machine=MACHINE, threads=1)
    operands = aligned(draw(subject.kernel, subject.sizes, seed=3, updates=subject.updates))
    expression = vendor_of(subject)
    assert expression is not None
    result = expression(tensors_of(operands))
    results = result if isinstance(result, tuple) else (result,)
    exact = expected(subject, operands)
    tolerance = {"f32": 2e-5, "bf16": 4e-2}[dtype]
    for want, got in zip((exact[n].value for n in subject.outputs), results, strict=True):
        np.testing.assert_allclose(got.float().numpy().reshape(want.shape), want, rtol=tolerance, atol=tolerance)


def test_causal_attention_is_understood():
    subject = Subject.of("attention", SIZES["attention"], "f32", options={"causal": True}, machine=MACHINE, threads=1)
    operands = aligned(draw(subject.kernel, subject.sizes, seed=3))
    got = vendor_of(subject)(tensors_of(operands))
    want = expected(subject, operands)["o"].value
    np.testing.assert_allclose(got.numpy().reshape(want.shape), want, rtol=2e-5, atol=2e-5)


def test_what_torch_is_not_asked_for_has_no_expression():
    windowed = Subject.of(
        "attention", SIZES["attention"], "f32", options={"causal": True, "window": 4}, machine=MACHINE
    )
    activated = Subject.of("matmul", SIZES["matmul"], "f32", options={"activation": "silu"}, machine=MACHINE)
    argmax = Subject.of("argmax", {"M": 4, "D": 8}, "f32", machine=MACHINE)
    assert [vendor_of(s) for s in (windowed, activated, argmax)] == [None] * 3


def test_operands_start_at_cache_lines_and_share_memory_with_torch():
    subject = Subject.of("rmsnorm", SIZES["rmsnorm"], "bf16", machine=MACHINE, threads=1)
    operands = aligned(draw(subject.kernel, subject.sizes, seed=3))
    for name, tensor in tensors_of(operands).items():
        if name in operands.tensors:
            assert operands.tensors[name].ctypes.data % 64 == 0
            assert tensor.data_ptr() == operands.tensors[name].ctypes.data


def test_a_compiler_is_looked_for(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert vendor.compiles() is False
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/g++" if name == "g++" else None)
    assert vendor.compiles() is True


def test_sets_of_operands_are_cold_but_bounded():
    assert operand_sets(Work(1e15, 1000)) == 1
    assert operand_sets(Work(1e3, 1 << 40)) == 1
    assert operand_sets(Work(1e3, 1)) == 64
