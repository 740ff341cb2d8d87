"""CUDA C++ of programs without roles, compiled for three generations: what ptxas and the SASS say of it."""

import functools
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tilewright.build.nvrtc import compile_cuda, missing
from tilewright.design.default import Facts
from tilewright.design.gpu.rows import fixed_dims
from tilewright.design.gpu.simt import default_simt, legal_simt
from tilewright.emit.abi import TensorLayout
from tilewright.emit.cuda_maps import shifting
from tilewright.emit.cuda_simt import emit_simt
from tilewright.language import ir
from tilewright.language.dtypes import f32, i32, i64
from tilewright.lower.gpu.simt import lower_simt
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS
from tilewright.runtime.compiled import dtypes_of

pytestmark = pytest.mark.skipif(missing() is not None, reason="NVRTC is not installed")

MACHINES = {"a100": "sm_80", "rtx4090": "sm_89", "h200": "sm_90a"}
SIZES = {"M": 512, "N": 1024, "K": 1024, "D": 4096, "B": 2, "S": 16, "H": 8, "R": 64, "P": 256, "E": 64, "G": 4,
         "T": 512, "L": 32, "V": 1000, "Q": 32, "C": 256, "J": 64}  # fmt: skip


def built(
    name, element="bf16", machine="h200", align=16, columns=(), options=None, present=(), any_length=False, **sizes
):
    """(module, cubin and report) of an operator's default design; `columns` are tensors stored by columns.

    With `any_length` the length of rows is no part of the kernel.
    """
    operator = OPERATORS[name]
    kernel = operator.kernel.trace(dtypes_of(operator.kernel, element, present), options=options)
    known = {"D": 64, **sizes} if "attention" in name else {"D": 128, **sizes} if "cache" in name else sizes
    sizes = {d: {**SIZES, **known}[d] for d in kernel.dims}
    tensors = {p.name: p.dims for p in kernel.params if p.dims}
    unit = {t: (len(dims) - (2 if t in columns else 1),) for t, dims in tensors.items()}
    aligned = frozenset(tensors) if align >= 16 else frozenset()
    whole = {a for s in ir.walk(kernel.body) if isinstance(s, ir.Let) for a in s.type.axes if a in kernel.dims}
    fixed = {d: n for d, n in sizes.items() if d in whole or (d in fixed_dims(kernel) and not any_length)}
    facts = Facts(sizes, unit, Machine.named(machine), aligned, frozenset(fixed))
    design = default_simt(kernel, facts)
    assert legal_simt(kernel, design, facts) == []
    layouts = {
        t: TensorLayout(tuple(1 if d in unit[t] else None for d in range(len(tensors[t]))), align) for t in tensors
    }
    module = emit_simt(lower_simt(kernel, design, facts), layouts, fixed, facts.machine)
    return module, compile_cuda(module.source, module.entry, MACHINES[machine])


@functools.cache
def disassembler():
    found = list(Path(sys.prefix).glob("lib/python*/site-packages/nvidia/*/bin/nvdisasm"))
    return found[0] if found else None


def sass(cubin):
    if disassembler() is None:
        pytest.skip("nvdisasm is not installed")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([disassembler(), "-c", file.name], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_compiles(name):
    optional = [p.name for p in OPERATORS[name].kernel.signature.params if p.optional]
    module, compiled = built(name, present=optional)
    assert module.threads <= 1024
    assert compiled.report.registers <= 255


@pytest.mark.parametrize("name", ["silu", "swiglu", "rmsnorm", "add_rmsnorm", "layernorm", "softmax", "argmax", "rope"])
@pytest.mark.parametrize("machine", MACHINES)
def test_rows_read_and_write_sixteen_bytes_at_once_and_never_spill(name, machine):
    module, compiled = built(name, machine=machine)
    assert compiled.report.spill_stores == compiled.report.stack == 0
    text = sass(compiled.cubin)
    assert "LDG.E.128" in text
    assert name == "argmax" or "STG.E.128" in text
    assert len(module.source.splitlines()) <= 90


@pytest.mark.parametrize("machine", ["a100", "rtx4090"])
@pytest.mark.parametrize("columns", [(), ("b",), ("a",), ("a", "b")], ids=["NT", "NN", "TT", "TN"])
def test_products_copy_asynchronously_and_multiply_on_tensor_cores_without_spills(machine, columns):
    module, compiled = built("matmul", machine=machine, columns=columns)
    assert compiled.report.spill_stores == compiled.report.stack == 0
    text = sass(compiled.cubin)
    assert all(word in text for word in ("LDGSTS", "LDSM", "HMMA"))
    assert ("LDSM.16.MT88" in text) == bool(columns)
    assert len(module.source.splitlines()) <= 80


@pytest.mark.parametrize("machine", MACHINES)
def test_rows_that_are_not_aligned_pass_through_registers(machine):
    module, compiled = built("matmul", machine=machine, align=2, M=1000, N=777, K=333)
    assert compiled.report.spill_stores == compiled.report.stack == 0
    text = sass(compiled.cubin)
    assert "LDGSTS" not in text
    assert all(word in text for word in ("LDSM", "HMMA", "LDG.E.128"))
    assert "tw::fetch" in module.source


def test_products_of_f32_use_vectors_of_shared_memory():
    _, compiled = built("matmul", "f32")
    assert compiled.report.spill_stores == compiled.report.stack == 0
    text = sass(compiled.cubin)
    assert "LDS.128" in text
    assert "FFMA" in text
    assert "HMMA" not in text


def test_few_rows_read_weights_once_sixteen_bytes_a_lane():
    _, compiled = built("matmul", M=1, N=4096, K=4096)
    assert compiled.report.spill_stores == compiled.report.stack == 0
    assert sass(compiled.cubin).count("LDG.E.128") >= 8


def test_few_rows_at_any_address_are_read_by_the_words_that_they_lie_in():
    module, compiled = built("matmul", align=2, M=1, N=4097, K=4095)
    assert compiled.report.spill_stores == compiled.report.stack == 0
    assert "tw::UNALIGNED" in module.source
    assert sass(compiled.cubin).count("LDG.E.128") >= 8


def test_a_program_of_two_loops_over_the_grid_is_refused():
    from tilewright.errors import IllegalDesign

    kernel = OPERATORS["silu"].kernel.trace({"x": "f32", "y": "f32"})
    twice = ir.Kernel(kernel.name, kernel.params, kernel.body * 2)
    layouts = {t: TensorLayout((None, 1), 16) for t in ("x", "y")}
    with pytest.raises(IllegalDesign, match="2 loops over the grid; write one kernel for each"):
        emit_simt(twice, layouts, {}, Machine.named("h200"))


@pytest.mark.parametrize(("divisor", "shifted"), [(1 << 31, 31), (8, 3), (1, 0), (7, None), (0, None), (-8, None)])
def test_a_division_by_a_known_power_of_two_is_a_shift(divisor, shifted):
    assert shifting("div", i64, divisor) == (None if shifted is None else f"tw::DivBy<{shifted}>{{}}")
    assert shifting("mod", i32, divisor) == (None if shifted is None else f"tw::ModBy<{shifted}>{{}}")
    assert shifting("div", f32, 8.0) is None and shifting("add", i32, 8) is None and shifting("mod", i32, "P") is None


def test_draws_divide_by_nothing_but_powers_of_two_where_each_token_does():
    module, _ = built("sample_parts", element="f32", present=("temperatures", "seeds", "places"))
    source = module.source
    assert source.count("tw::DivBy<31>{}") == source.count("tw::ModBy<31>{}") == 8
    assert "tw::DivBy<8>{}" in source
    assert not re.search(r"map<tw::Tile<tw::i64, axis::d>>\(tw::(Div|Mod)\{\}", source)
