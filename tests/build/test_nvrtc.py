"""CUDA C++ compiled without a GPU."""

from __future__ import annotations

import pytest

from tilewright.build import nvrtc
from tilewright.build.cuda_kernel import disassemble
from tilewright.errors import CompileError, MachineError

SOURCE = """
extern "C" __global__ void __launch_bounds__(128) scale(float* x, float by) { x[threadIdx.x] *= by; }
"""


@pytest.mark.parametrize("architecture", ["sm_80", "sm_89", "sm_90a"])
def test_a_kernel_becomes_a_cubin_with_a_report(architecture):
    compiled = nvrtc.compile_cuda(SOURCE, "scale", architecture)
    assert compiled.cubin[:4] == b"\x7fELF"
    assert 0 < compiled.report.registers <= 32
    assert compiled.report.spills == 0


def test_the_cubin_can_be_read_back():
    assert "FMUL" in disassemble(nvrtc.compile_cuda(SOURCE, "scale", "sm_90a").cubin)


def test_ptx_is_text():
    assert ".entry scale" in nvrtc.compile_ptx(SOURCE, "scale", "sm_90a")


def test_an_error_carries_the_compilers_message():
    with pytest.raises(CompileError, match="undefined_thing"):
        nvrtc.compile_cuda(SOURCE.replace("by;", "undefined_thing;"), "scale", "sm_90a")


def test_an_unknown_architecture_is_named_with_those_known():
    with pytest.raises(MachineError, match=r"sm_42.*sm_90"):
        nvrtc.compile_cuda(SOURCE, "scale", "sm_42")


def test_headers_are_found_through_one_another():
    found = nvrtc.headers_of('#include "tw/tile.cuh"\n')
    assert "tw/tile.cuh" in found
    assert list(found) == sorted(found)


def test_a_missing_header_is_named():
    with pytest.raises(CompileError, match=r"tw/absent\.cuh"):
        nvrtc.headers_of('#include "tw/absent.cuh"\n')


def test_missing_says_nothing_where_nvrtc_works():
    assert nvrtc.missing() is None
