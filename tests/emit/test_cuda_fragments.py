"""Products of few rows straight from memory, as CUDA C++: what ptxas and the SASS say on three generations."""

import sys
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "lower" / "gpu")]
from products import facts, traced
from test_cuda_library import holds
from test_cuda_simt import MACHINES, sass

from tilewright.build.nvrtc import compile_cuda, missing
from tilewright.design.design import Design
from tilewright.design.gpu.product import product
from tilewright.design.gpu.straight import Straight, straight
from tilewright.design.legality import legal
from tilewright.emit.abi import TensorLayout
from tilewright.emit.cuda import emit_cuda
from tilewright.lower.gpu.stages import lower_gpu

pytestmark = pytest.mark.skipif(missing() is not None, reason="NVRTC is not installed")

CASES = {
    "one row": ("matmul", (1, 8, 1, 8), {"M": 1, "N": 2048, "K": 2048}),
    "sixteen rows": ("matmul", (2, 8, 1, 4), {"M": 16, "N": 4096, "K": 4096}),
    "odd": ("matmul", (2, 5, 2, 3), {"M": 3, "N": 1001, "K": 1000}),
    "epilogue": ("epilogue", (1, 8, 1, 4), {"M": 4, "N": 4096, "K": 14336}),
    "gate_up": ("gate_up", (1, 4, 2, 4), {"M": 8, "N": 8192, "K": 2048}),
    "batched": ("batched", (1, 8, 1, 4), {"B": 3, "M": 7, "N": 256, "K": 512}),
    "one row by lanes": ("matmul", (1, 4, 2, 4, "fma"), {"M": 1, "N": 4096, "K": 4096}),
    "four rows by lanes": ("epilogue", (1, 4, 2, 2, "fma"), {"M": 4, "N": 4096, "K": 2048}),
    "gate_up by lanes": ("gate_up", (1, 4, 2, 2, "fma"), {"M": 1, "N": 8192, "K": 2048}),
    "odd by lanes": ("matmul", (2, 3, 2, 2, "fma"), {"M": 3, "N": 1001, "K": 1000}),
    "four fragments of rows": ("matmul", (1, 4, 2, 2), {"M": 64, "N": 4096, "K": 4096}),
}


def straight_of(case, machine, **more):
    """(the product by its design, program, design, facts) of a case, by its deal and `more` decisions."""
    name, deal, sizes = CASES[case]
    kernel = traced(name)
    known = facts(kernel, machine=machine, **sizes)
    found = product(kernel)
    design = Design.of({**dict(straight(found, known, *deal).decisions), **more})
    return Straight(found, design, known), kernel, design, known


def built(case, machine, constant=(), **more):
    """(module, cubin with report) of a case, by its deal and `more` decisions."""
    _, kernel, design, known = straight_of(case, machine, **more)
    assert legal(kernel, design, known) == []
    layouts = {
        p.name: TensorLayout(
            tuple(1 if d in known.unit[p.name] else None for d in range(len(p.dims))), 128, p.name in constant
        )
        for p in kernel.params
    }
    module = emit_cuda(lower_gpu(kernel, design, known), layouts, known.sizes, known.machine)
    return module, compile_cuda(module.source, module.entry, MACHINES[machine])


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("case", CASES)
def test_operands_are_read_sixteen_bytes_at_once_and_multiplied_without_spills(case, machine):
    module, compiled = built(case, machine)
    assert compiled.report.spill_stores == compiled.report.stack == 0
    assert module.shared_bytes == 0
    text = sass(compiled.cubin)
    assert "LDG.E.128" in text or "LDG.E.NA" in text
    assert ("FFMA" if "lanes" in case else "HMMA.16816.F32") in text
    assert "LDGSTS" not in text
    assert len(module.source.splitlines()) <= 80


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("case", ["one row", "odd", "gate_up", "one row by lanes", "gate_up by lanes", "batched"])
def test_weights_on_their_way_pass_through_shared_memory_asynchronously(case, machine):
    module, compiled = built(case, machine, stages=2)
    assert compiled.report.spill_stores == compiled.report.stack == 0
    assert module.shared_bytes == straight_of(case, machine, stages=2)[0].ring_bytes
    text = sass(compiled.cubin)
    assert "LDGSTS.E" in text and "LDS.128" in text
    assert ("FFMA" if "lanes" in case else "HMMA.16816.F32") in text


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("case", ["epilogue", "odd", "gate_up"])
def test_weights_that_flow_are_asked_for_between_products_and_pass_through_no_shared_memory(case, machine):
    module, compiled = built(case, machine, stages=1)
    assert compiled.report.spill_stores == compiled.report.stack == module.shared_bytes == 0
    text = sass(compiled.cubin)
    assert "LDGSTS" not in text
    steps = text[text.index("HMMA") : text.rindex("HMMA")]
    whole = case == "gate_up"  # its few steps are in flight at once, where registers hold them
    assert whole or "LDG.E.128" in steps or "LDG.E.NA" in steps


def test_constant_weights_that_flow_are_asked_for_before_the_wait_for_the_last_kernel():
    text = sass(built("epilogue", "h200", ("b",), stages=1)[1].cubin)
    assert text[: text.index("ACQBULK")].count("LDG.E.NA") == 4


def test_constant_weights_on_their_way_are_asked_for_before_the_wait_for_the_last_kernel():
    text = sass(built("one row", "h200", ("b",), stages=2)[1].cubin)
    assert 0 < text.index("LDGSTS") < text.index("ACQBULK")


def test_all_that_a_warp_asks_for_in_a_step_is_in_flight_before_the_first_product():
    text = sass(built("one row", "h200")[1].cubin)
    before = text[: text.index("HMMA")]
    assert before.count("LDG.E.NA") >= 7  # of 8


def test_weights_that_are_constant_are_asked_for_before_the_wait_for_the_last_kernel():
    module, compiled = built("one row", "h200", ("b",))
    assert module.pdl
    text = sass(compiled.cubin)
    at = text.index("ACQBULK")
    assert text[:at].count("LDG.E.NA") == 8
    assert text[:at].count("LDG.E.128") == 0
    assert text[at:].count("LDG.E.128") >= 1


@pytest.mark.parametrize(
    "layout",
    ["OperandRows<2, 4, 3>", "OperandRows<8, 1, 1>", "WarpRows<2, 3, 5>", "Chunks<4, 8, 2>", "Chunks<3, 8, 5>"],
)
def test_every_position_is_held_once_by_the_threads_that_share_the_axis(layout):
    holds(
        f"""
        typedef {layout} L;
        constexpr int extent = L::N * (L::WARPS << L::BITS), threads = L::WARPS * L::WARP_STRIDE * 32;
        constexpr bool even() {{
          int times[extent] = {{}};
          for (int t = 0; t < threads; ++t)
            for (int r = 0; r < L::N; ++r) ++times[L::base(t) + L::at(r)];
          for (int p = 0; p < extent; ++p) if (times[p] != threads / (L::WARPS << L::BITS)) return false;
          return true;
        }}
        static_assert(even(), "a position is missing, or held too often");
        """,
        "fragments",
    )
