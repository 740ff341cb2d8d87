"""The assembler's report on its way to legality: a design whose registers do not fit is refused when it is built."""

from __future__ import annotations

from dataclasses import replace

import pytest

import tilewright as tw
from tilewright.build import cuda_kernel
from tilewright.build.cuda_kernel import build_cuda
from tilewright.build.nvrtc import Compiled
from tilewright.errors import IllegalDesign
from tilewright.machines.machine import Machine
from tilewright.show import stage_text

H200 = Machine.named("h200")
SIZES = {"M": 80, "N": 256, "K": 192}


def compiled() -> tw.CompiledKernel:
    return tw.compile(tw.operators.matmul, dtype="bf16", machine=H200, **SIZES)


def test_the_kernel_in_the_hand_says_what_it_takes():
    kernel = compiled()
    assert kernel.usage is not None
    assert (kernel.usage.spills, kernel.usage.stack) == (0, 0)
    assert 0 < kernel.usage.registers <= 255 and kernel.usage.shared > 1 << 10
    assert build_cuda(kernel.stages.request, H200).usage == kernel.usage
    assert tw.compile(tw.operators.softmax, M=4, D=64).usage is None  # of a kernel for a CPU


def test_it_can_be_shown_without_a_gpu():
    text = stage_text("matmul", SIZES, "bf16", "usage", H200)
    lines = {line[:40].rstrip(" 0123456789,"): int(line.split()[-1].replace(",", "")) for line in text.splitlines()}
    assert lines["registers of a thread"] == compiled().usage.registers
    assert lines["bytes spilled, stored and loaded"] == 0
    assert lines["blocks on an SM of h"] >= 1


@pytest.mark.parametrize(
    ("change", "says"), [({"spill_loads": 4000}, "local memory"), ({"registers": 1000}, "an SM has")]
)
def test_a_design_is_refused_by_what_only_the_assembler_knows(monkeypatch, tmp_path, change, says):
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path))
    real = cuda_kernel.nvrtc.compile_cuda

    def worse(*arguments):
        found = real(*arguments)
        return Compiled(found.cubin, replace(found.report, **change))

    monkeypatch.setattr(cuda_kernel.nvrtc, "compile_cuda", worse)
    with pytest.raises(IllegalDesign, match=rf"compiled: \[.*{says}.*take smaller tiles"):
        build_cuda(compiled().stages.request, H200)
