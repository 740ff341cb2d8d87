"""CUDA C++ of chained products: compiled for Hopper, no GPU needed; what ptxas and the disassembly say of it."""

import re
import sys
from itertools import groupby
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "lower" / "gpu"))
from chains import BASE, DESIGNS, PROGRAMS, attention, design, facts

from tilewright.build.cuda_kernel import disassemble
from tilewright.build.nvrtc import compile_cuda, missing
from tilewright.design.default import default_design
from tilewright.emit.abi import TensorLayout
from tilewright.emit.cuda import emit_cuda
from tilewright.lower.gpu.stages import lower_gpu

pytestmark = pytest.mark.skipif(missing() is not None, reason="NVRTC is not installed")

LARGE = {"B": 2, "H": 8, "G": 4, "S": 2048, "T": 2048, "M": 2048, "F": 8192}
FAST = {**BASE, "overlap": True, "schedule": "pingpong", "persistent": True, "drawn": True, "store": "tma"}


def module(kernel, decisions=None, **sizes):
    """The CUDA module of a chain: some decisions, or its default design."""
    known = facts(kernel, **{**LARGE, **sizes})
    chosen = default_design(kernel, known) if decisions is None else design(kernel, decisions)
    layouts = {
        p.name: TensorLayout(tuple(1 if d == len(p.dims) - 1 else None for d in range(len(p.dims))), 16)
        for p in kernel.params
        if p.dims is not None
    }
    fixed = {d: n for d, n in known.sizes.items() if d in known.fixed}
    return emit_cuda(lower_gpu(kernel, chosen, known), layouts, fixed, known.machine)


def compiled(found):
    """Cubin and report; nothing may be said of products that wait for one another."""
    binary = compile_cuda(found.source, found.entry, "sm_90a")
    assert binary.report.warnings == ()
    return binary


def events(sass):
    """What of interest a kernel does, in order, with how often in a row."""
    found = re.findall(r"HGMMA|WARPGROUP\.DEPBAR\.LE gsb0, 0x\d|MUFU\.EX2", sass)
    return [(name, len(list(same))) for name, same in groupby(found)]


@pytest.mark.parametrize("decisions", DESIGNS.values(), ids=DESIGNS)
def test_designs_compile_without_spills_to_the_matrix_unit_and_the_copy_engine(decisions):
    found = module(PROGRAMS["causal"], decisions)
    binary = compiled(found)
    sass = disassemble(binary.cubin)
    assert binary.report.spills == 0
    assert "HGMMA" in sass and "UTMALDG" in sass
    assert not re.search(r"\b(STL|LDL)\b", sass)
    assert ("UTMASTG" in sass) == ("store" in decisions)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_compile_without_spills(name):
    binary = compiled(module(PROGRAMS[name], FAST))
    assert binary.report.spills == 0
    assert "HGMMA" in disassemble(binary.cubin)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("width", [64, 80, 96, 128, 256])
def test_default_designs_of_all_head_dims_compile_without_spills(width, causal):
    kernel = attention(causal=True) if causal else attention()
    found = module(kernel, D=width, E=width)
    assert compiled(found).report.spills == 0
    assert found.shared_bytes <= 232448


def test_the_second_operand_stays_in_registers():
    sass = disassemble(compiled(module(PROGRAMS["full"], FAST, D=128, E=128)).cubin)
    assert re.search(r"HGMMA\.64x128x16\.F32\.BF16 R\d+, R\d+, gdesc", sass)  # first operand: registers
    assert re.search(r"HGMMA\.64x128x16\.F32\.BF16 R\d+, gdesc", sass)  # both in shared memory


def test_both_products_are_issued_before_scores_are_looked_at():
    """Sixteen in a row: eight of this step's scores, eight of the last step's sums; only the first are waited for."""
    sass = disassemble(compiled(module(PROGRAMS["full"], FAST, D=128, E=128)).cubin)
    found = events(sass)
    at = [n for n, event in enumerate(found) if event == ("HGMMA", 16)]
    assert at and all(found[n + 1][0].endswith("0x1") for n in at)


def loop_without_masks(found):
    """The text of the loop whose steps need no mask."""
    loops = re.findall(r"for \(; t_at \+ \d+ <= [^;&]*;[^{]*\{\n(.*?)\n {6,8}\}\n", found.source, re.S)
    assert len(loops) == 1
    return loops[0]


@pytest.mark.parametrize("name", ["causal", "window", "ragged window", "packed"])
def test_steps_between_the_bounds_carry_no_mask(name):
    found = module(PROGRAMS[name], DESIGNS["turns"])
    inner = loop_without_masks(found)
    assert "Select" not in inner and "coord" not in inner and "Part<axis::t, 0>" in inner
    assert "Select" in found.source.replace(inner, "")


def test_a_warp_of_the_producer_reads_the_numbers_of_rows_that_say_where_columns_end():
    """One thread that reads them in turn takes longer than consumers take for a tile; only copies are one lane's."""
    found = module(PROGRAMS["packed"], FAST, N=2048)
    producer, consumers = found.source.split("// The producer")[1].split("// Consumers")
    assert producer.count("over_rows<128>") == 2 and consumers.count("over_rows<128>") == 4
    assert producer.index("over_rows") < producer.index("if (lane == 0)") < producer.index("load_box")
    assert "item = __shfl_sync(0xFFFFFFFF, item, 0);" in producer
    sass = disassemble(compiled(found).cubin)
    code = re.findall(r"^ +/\*[0-9a-f]{4,5}\*/ +(?:@!?U?P\d )?([A-Z]+)", sass, re.MULTILINE)
    assert code.count("REDUX") == 6  # an extreme of a warp's numbers is one instruction
    before = code[: code.index("REDUX")]
    assert before.count("LDG") == 16  # 4 extremes of 128 numbers: all are under way before the first is waited for
    one = module(PROGRAMS["causal"], FAST).source.split("// Consumers")[0]
    assert "if (warp == 8 && elected())" in one and "if (lane == 0)" not in one and "item = __shfl" not in one


def test_warpgroups_take_the_steps_that_their_own_rows_need():
    """What bounds the columns is computed of a warpgroup's rows; columns that only others see count as read."""
    source = module(PROGRAMS["causal"], {**DESIGNS["turns"], "own": True}).source
    assert "min(s0 + 128, S) - 1" in source and "min(s_mine + 64, S) - 1" in source
    assert "t_high = s_mine < S ? " in source
    skipped = re.findall(r"for \(; t_at < t_end; [^{]*\{\n(.*?)\n +\}\n", source, re.S)
    assert len(skipped) == 1 and "multiply" not in skipped[0]
    for barrier in ("k_full.wait_full(slot)", "v_full.wait_full(slot)", "k_empty.arrive(slot", "v_empty.arrive(slot",
                    "meet(", "pass("):  # fmt: skip
        assert barrier in skipped[0]
    assert "s_mine" not in module(PROGRAMS["causal"], DESIGNS["turns"]).source


def test_a_score_is_one_multiplication_and_one_power():
    """exp2(x scale - top): the scale is folded into a multiply-add, and the largest is found before it is scaled."""
    inner = loop_without_masks(module(PROGRAMS["full"], FAST, D=128, E=128))
    assert "largest_scaled" in inner and "ApproxExp2" in inner
    sass = disassemble(compiled(module(PROGRAMS["full"], FAST, D=128, E=128)).cubin)
    counts = {op: len(re.findall(rf"\b{op}\b", sass)) for op in ("FFMA", "MUFU.EX2", "FMUL")}
    scores = 4 * 64  # registers of scores in four copies of a step: the first, with masks and without, and the others
    assert counts["MUFU.EX2"] <= scores + 16 and counts["FFMA"] <= scores + 16
    assert counts["FMUL"] <= 4 * 64 + 2 * 64 + 32  # sums so far, scaled; scores where tiles may be short


def test_the_source_is_readable():
    source = module(PROGRAMS["full"], FAST).source
    assert source.startswith("// attention for h200, design ")
    assert len(source.splitlines()) < 360
    for name in ("s_q", "s_k", "s_v", "q_full", "k_empty", "acc2", "dot0", "as_operand"):
        assert re.search(rf"\b{name}\b", source)


def test_a_module_says_what_a_launch_needs():
    found = module(PROGRAMS["full"], FAST, D=128, E=128)
    assert found.threads == 384 and found.grid.persistent
    assert found.grid.axes == (("B", 1), ("H", 1), ("G", 1), ("S", 128))
    assert {s.name: s.zeroed for s in found.scratch} == {"tickets": True}
    assert {m.tensor: (m.dims, m.box) for m in found.maps}["k"] == ((3, 2, 1, 0), (64, 128, 1, 1))


def test_shared_memory_is_what_legality_counts():
    from tilewright.design.gpu.chain import chain
    from tilewright.design.gpu.chain_resources import ChainResources

    for name, decisions in DESIGNS.items():
        kernel = PROGRAMS["causal"]
        known, chosen = facts(kernel, **LARGE), design(kernel, decisions)
        counted = ChainResources(chain(kernel), chosen, known).shared_bytes
        assert 0 <= counted - module(kernel, decisions).shared_bytes <= 64, name


def test_what_lies_past_the_end_of_a_short_sequence_is_cleared_before_it_meets_a_zero():
    assert "clear_rows<" in module(PROGRAMS["ragged"], FAST).source
    assert "clear_rows<" not in module(PROGRAMS["full"], FAST).source


def test_names_that_are_members_of_distributions_are_told_apart():
    assert "axis::N_" in module(PROGRAMS["two layers"], DESIGNS["plain"]).source


def test_nothing_is_read_before_the_last_kernel_has_ended():
    """Constant weights too: the producer of a chain waits once, for all that it reads."""
    kernel = PROGRAMS["two layers"]
    known = facts(kernel, **LARGE)
    layouts = {p.name: TensorLayout((None, 1), 16, p.name != "y") for p in kernel.params}
    found = emit_cuda(
        lower_gpu(kernel, design(kernel, DESIGNS["plain"]), known), layouts, {"K": 64, "N": 64}, known.machine
    )
    assert found.source.count("wait_for_last();") == 1
    assert found.source.index("wait_for_last();") < found.source.index("load_box(")
