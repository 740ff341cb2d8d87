"""What is counted of a program's elements: instructions, special functions, requests at odd places."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from programs import facts, traced

from tilewright import operators
from tilewright.build.cuda_kernel import CudaStages
from tilewright.build.kernel_cache import Request
from tilewright.build.nvrtc import missing
from tilewright.design.cost.gpu_elements import WIDENED, Work, of_products, sums_of, width, work_of
from tilewright.design.cost.gpu_epilogue import LANES, SPECIAL
from tilewright.design.cost.program import program_of
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.emit.abi import TensorLayout
from tilewright.errors import CompileError
from tilewright.machines.machine import Machine

SILU, SOFTMAX = traced("silu", "bf16"), traced("softmax", "bf16")
FLAT = Design.of({"tile.d": 1024, "tile.m": 1, "vec.x": 8, "vec.y": 8, "warps": 4})


def aligned(kernel, **sizes):
    return replace(facts(kernel, "h200", **sizes), aligned=frozenset(p.name for p in kernel.params if p.dims))


def test_silu_costs_its_instructions_and_two_special_functions_an_element():
    found = work_of(program_of(SILU), FLAT, aligned(SILU, M=3, D=2048))
    blocks, elements = 6, 6 * 1024
    # bf16 to f32, sigmoid (two, and two special ones), the product; rounding to bf16 goes by pairs where it is stored
    own = elements * (1 + 2 + 1) + 2 * elements / 8 * 2 + blocks * 128 * 40
    assert found.special == 2 * elements
    assert found.own == pytest.approx(own, rel=0.12)
    assert found.beside == 0


def test_tiles_are_computed_whole():
    whole = work_of(program_of(SILU), FLAT, aligned(SILU, M=1, D=1024))
    assert work_of(program_of(SILU), FLAT, aligned(SILU, M=1, D=1000)).special == whole.special


def test_other_warps_issue_while_some_wait_for_the_special_unit():
    assert Work(own=LANES, special=0).cycles == pytest.approx(1)
    both = Work(own=LANES * 3, special=SPECIAL * 3).cycles
    assert 3.0 < both < 6.0


def test_rows_that_are_stored_decide_how_wide_accesses_are():
    program = program_of(SOFTMAX)
    design = Design.of({"vec.x": 8, "vec.y": 8})
    assert width(program, "x", design, aligned(SOFTMAX, M=4, D=4096)) == 8
    assert width(program, "x", design, aligned(SOFTMAX, M=4, D=4094)) == 2  # rows of 8,188 bytes: words
    assert width(program, "x", design, aligned(SOFTMAX, M=4, D=4095)) == 1
    shifted = replace(aligned(SOFTMAX, M=4, D=4096), aligned=frozenset())
    assert width(program, "x", design, shifted) == 1


def test_requests_beside_sixteen_bytes_are_counted_by_warps():
    known = replace(aligned(SILU, M=8, D=2048), aligned=frozenset())
    assert work_of(program_of(SILU), FLAT, known).beside == 2 * 8 * 2048 / 32


def test_sums_along_neighbours_leave_one_result_and_across_them_one_for_each():
    gradient = traced("rmsnorm_weight_backward", "bf16")
    along, across = program_of(SOFTMAX), program_of(gradient)
    assert sums_of(along, along.nests[0], facts(SOFTMAX, "h200", M=4, D=4096)) == [(1, 1), (1, 1)]
    assert [held for held, _ in sums_of(across, across.nests[0], facts(gradient, "h200", M=64, D=128))] in ([4], [8])


@pytest.mark.parametrize(("tiles", "computed"), [({"tile.g": 4, "swap": True}, 8), ({"tile.g": 4}, 16)])
def test_keys_of_eight_bits_are_widened_and_rows_of_mma_computed_whole(tiles, computed):
    sizes = {"B": 1, "H": 1, "G": 4, "S": 1, "T": 1024, "D": 128, "E": 128}
    types = dict.fromkeys("qo", "bf16") | dict.fromkeys(("k_scale", "v_scale"), "f32")
    narrow, plain = (
        operators.attention.kernel.trace({**types, "k": dtype, "v": dtype}) for dtype in ("f8e4m3", "bf16")
    )
    found = {}
    for kernel in (narrow, plain):
        for atom in ("mma", "wgmma"):
            design = Design.of({**tiles, "tile.t": 16, "atom.dot0": atom, "atom.dot1": atom})
            found[kernel is narrow, atom] = of_products(program_of(kernel), design, facts(kernel, "h200", **sizes))
    widening = 2 * 1024 * 128 * WIDENED
    assert found[True, "wgmma"] - found[False, "wgmma"] == pytest.approx(widening, rel=0.05)
    assert found[True, "mma"] - found[False, "mma"] == pytest.approx(widening, rel=0.05)
    assert found[False, "mma"] / found[False, "wgmma"] == pytest.approx(computed / 4, rel=0.1)


@pytest.mark.skipif(missing() is not None, reason="NVRTC is not installed")
@pytest.mark.parametrize("name", ["silu", "gelu", "softmax", "rmsnorm", "layernorm"])
def test_the_counts_are_near_those_of_the_machine_code(name):
    """Of straight-line kernels every instruction is executed once."""
    kernel = traced(name, "bf16", **({"activation": "gelu"} if name == "gelu" else {}))
    known = replace(aligned(kernel, M=8192, D=4096), fixed=frozenset({"D"}))
    design = default_design(kernel, known)
    layouts = tuple((p.name, TensorLayout((4096, 1)[-len(p.dims) :], 16)) for p in kernel.params if p.dims)
    try:
        text = CudaStages(Request(kernel, design, layouts, (("D", 4096),)), Machine.named("h200")).text("sass")
    except CompileError:
        pytest.skip("nvdisasm is not installed")
    listing = re.findall(r"^\s+/\*[0-9a-f]{4}\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9]*)", text, re.M)
    executed = sum(op not in ("NOP", "BRA") for op in listing)
    work = work_of(program_of(kernel, design), design, known)
    blocks = 8192 * (1 if any("keep" in k for k, _ in design.decisions) else 4096 // design.number("tile.d"))
    threads = blocks * 32 * design.number("warps")
    assert (work.own + work.special) / threads == pytest.approx(executed, rel=0.3)
