"""CUDA C++ of programs with roles: compiled for Hopper, no GPU needed; what ptxas and the disassembly say of it."""

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "lower" / "gpu"))
from products import BASE, DESIGNS, FEW, design, facts, traced

from tilewright.build.cuda_kernel import disassemble
from tilewright.build.nvrtc import compile_cuda, missing
from tilewright.emit.abi import TensorLayout
from tilewright.emit.cuda import emit_cuda
from tilewright.lower.gpu.stages import lower_gpu

pytestmark = pytest.mark.skipif(missing() is not None, reason="NVRTC is not installed")

LARGE = {"M": 4096, "N": 4096, "K": 4096, "B": 2}


def module(product, decisions, columns=(), fixed=("M", "N", "K", "B"), **sizes):
    """The CUDA module of a product under some decisions."""
    kernel = traced(product)
    known = facts(kernel, columns, **{**LARGE, **sizes})
    scheduled = lower_gpu(kernel, design(kernel, decisions), known)
    layouts = {
        p.name: TensorLayout(tuple(1 if d in known.unit[p.name] else None for d in range(len(p.dims))), 16)
        for p in kernel.params
    }
    return emit_cuda(scheduled, layouts, {d: n for d, n in known.sizes.items() if d in fixed}, known.machine)


def compiled(found):
    return compile_cuda(found.source, found.entry, "sm_90a")


@pytest.mark.parametrize("decisions", DESIGNS.values(), ids=DESIGNS)
def test_designs_compile_without_spills_to_the_matrix_unit_and_the_copy_engine(decisions):
    found = module("matmul", decisions)
    binary = compiled(found)
    sass = disassemble(binary.cubin)
    assert binary.report.spills == 0
    assert "HGMMA" in sass and "UTMALDG" in sass
    assert not re.search(r"\b(STL|LDL)\b", sass)
    assert ("UTMASTG" in sass) == ("store.OUT" in decisions)
    assert ("multicast" in found.source or "load_box_to_all" in found.source) == any("cluster." in d for d in decisions)


@pytest.mark.parametrize("decisions", [BASE, FEW], ids=["many rows", "few rows"])
@pytest.mark.parametrize("product", ["epilogue", "gate_up", "batched"])
def test_products_with_more_to_them_compile_without_spills(product, decisions):
    binary = compiled(module(product, decisions))
    assert binary.report.spills == 0
    assert "HGMMA" in disassemble(binary.cubin)


@pytest.mark.parametrize("columns", [("a",), ("b",), ("a", "b")])
def test_operands_stored_by_columns_are_turned_by_the_matrix_unit(columns):
    found = module("matmul", BASE, columns)
    assert found.source.count("SumDownRows<64>") == len(columns)
    assert compiled(found).report.spills == 0


def test_sizes_may_be_known_only_at_the_call():
    found = module("matmul", BASE, fixed=(), M=1000, N=777, K=300)
    assert "const int K = int(args.words[" in found.source
    assert "4096" not in found.source
    assert compiled(found).report.spills == 0


def test_the_main_loop_of_a_cluster_has_no_fence():
    """A remote arrival that releases costs a fence of the whole GPU in every step: seen as 30% of the time."""
    sass = disassemble(compiled(module("matmul", DESIGNS["cluster of rows"])).cubin)
    lines = sass.splitlines()
    multiplies = [n for n, line in enumerate(lines) if "HGMMA" in line]
    loop = "\n".join(lines[multiplies[0] - 60 : multiplies[-1] + 40])
    assert "MEMBAR" not in sass and "ERRBAR" not in sass
    assert "SYNCS" in loop


def test_a_block_of_a_cluster_stays_until_nobody_can_signal_to_it():
    """Relaxed meetings do not hold signals back: one that comes to a block that has gone is an error of the device."""
    source = module("matmul", DESIGNS["cluster of rows"]).source
    assert source.index("load_box_to_all") < source.index("empty.drain(slot);")
    assert "drain" not in module("matmul", BASE).source


def test_a_block_sends_the_parts_of_others_and_keeps_its_own():
    """Two parts of 64 x 32 in f32, of which each block ends one half: half a part comes to it."""
    source = module("matmul", DESIGNS["joined in a cluster"]).source
    assert "const Arrivals<2, 4096> parts(shared + " in source and "parts.give(" in source


def test_the_source_is_readable():
    source = module("matmul", DESIGNS["engine stores"]).source
    assert source.startswith("// matmul for h200, design ")
    assert len(source.splitlines()) <= 80
    for name in ("s_a", "s_b", "empty", "full", "acc0", "m0", "n0"):
        assert re.search(rf"\b{name}\b", source)


def test_a_module_says_what_a_launch_needs():
    found = module("matmul", DESIGNS["two passes"])
    assert found.threads == 384 and found.grid.splits == 3 and found.grid.axes == (("M", 128), ("N", 128))
    assert {s.name: s.zeroed for s in found.scratch} == {"acc0_parts": False, "tickets": True}
    a, b = found.maps
    assert (a.tensor, a.dims, a.box, a.swizzle) == ("a", (1, 0), (64, 128), 128)
    assert (b.tensor, b.dims, b.box, b.swizzle) == ("b", (1, 0), (64, 128), 128)


def test_every_warpgroup_has_slots_of_its_own_for_what_leaves():
    for name in ("engine stores", "turns, engine stores"):
        found = module("matmul", DESIGNS[name])
        assert "const Leaving<2, 8192> s_c{" in found.source and "s_c.slot(group, leaving++)" in found.source, name
        start = int(re.search(r"s_c{shared \+ (\d+)};", found.source)[1])
        barriers = min(int(n) for n in re.findall(r"Barriers<.*\(shared \+ (\d+)\)", found.source))
        assert start + 2 * 2 * 8192 <= barriers, name


def test_a_cluster_is_part_of_the_grid():
    grid = module("matmul", DESIGNS["cluster of rows"]).grid
    assert (grid.cluster, grid.cluster_axes, grid.persistent) == (2, ((0, 2),), True)
    assert module("matmul", DESIGNS["joined in a cluster"]).grid.cluster == 2


def test_shared_memory_is_what_legality_counts():
    from tilewright.design.gpu.product import product
    from tilewright.design.gpu.resources import Resources

    for name, decisions in DESIGNS.items():
        kernel = traced("matmul")
        known, chosen = facts(kernel, **LARGE), design(kernel, decisions)
        counted = Resources(product(kernel), chosen, known).shared_bytes
        assert 0 <= counted - module("matmul", decisions).shared_bytes <= 8192, name


def test_functions_are_approximated_only_where_results_have_16_bits():
    from tilewright.operators import OPERATORS

    for out, approximate, decisions in (("bf16", True, DESIGNS["engine stores"]), ("f32", False, BASE)):
        kernel = OPERATORS["matmul"].kernel.trace({"a": "bf16", "b": "bf16", "c": out}, options={"activation": "gelu"})
        known = facts(kernel, **LARGE)
        layouts = {p.name: TensorLayout((None, 1), 16) for p in kernel.params}
        found = emit_cuda(lower_gpu(kernel, design(kernel, decisions), known), layouts, known.sizes, known.machine)
        assert ("ApproxErf" in found.source) == approximate
        assert compiled(found).report.spills == 0
