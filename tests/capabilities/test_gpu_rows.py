"""Rows A12, A13, A19, B11, C5, C6, D1 and D2 of the list of capabilities, each under its own name. No GPU is needed.

What a kernel does is read off its scheduled program, its source and the machine code that it is compiled to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import geometric_mean

import pytest

from tilewright import operators
from tilewright.bench import gemm_ladder
from tilewright.bench.gemm_cases import gemm_cases
from tilewright.bench.record import newest
from tilewright.bench.result import Result
from tilewright.build import nvrtc
from tilewright.build.cuda_kernel import CudaStages
from tilewright.build.kernel_cache import Request
from tilewright.design.cost.gpu_memory import bank_passes
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.design.gpu.product import product
from tilewright.design.gpu.resources import Resources
from tilewright.design.legality import legal
from tilewright.emit.abi import TensorLayout
from tilewright.language import ir
from tilewright.machines.machine import Machine
from tilewright.report.evidence import read

ROOT = Path(__file__).parents[2]
ARCHITECTURES = {"a100": "sm_80", "l40s": "sm_89", "h200": "sm_90a"}
LARGE, FEW_ROWS = (4096, 4096, 4096), (16, 4096, 4096)


@dataclass(frozen=True)
class Case:
    """An operator at sizes M, N, K, on a machine, by its default design."""

    operator: str = "matmul"
    sizes: tuple[int, int, int] = LARGE
    machine: str = "h200"
    element: str = "bf16"


@cache
def kernel(operator: str, element: str) -> ir.Kernel:
    found = getattr(operators, operator)
    options = {"activation": None} if operator == "matmul" else {}
    tensors = [p.name for p in found.kernel.signature.params if not p.optional]
    return found.kernel.trace(dict.fromkeys(tensors, element), options=options)


@cache
def stages(case: Case) -> CudaStages:
    """All stages of a case's kernel, each made once for all tests."""
    m, n, k = case.sizes
    program = kernel(case.operator, case.element)
    sizes = {"M": m, "N": n, "K": k}
    layouts = tuple(
        (p.name, TensorLayout((sizes[str(p.dims[1])], 1), 16)) for p in program.params if p.dims is not None
    )
    empty = Request(program, Design(), layouts, tuple(sizes.items()))
    machine = Machine.named(case.machine)
    design = default_design(program, empty.facts(machine))
    return CudaStages(Request(program, design, layouts, tuple(sizes.items())), machine)


@cache
def instructions(case: Case) -> tuple[str, ...]:
    """The machine code, an instruction with its operands each; labels as `.L_x_1:`."""
    text = stages(case).text("sass")
    lines = re.findall(r"^\s*(?:/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+ +)?([A-Z][^;]*?)\s*;|(\.L_x_\d+:))", text, re.MULTILINE)
    return tuple(code or label for code, label in lines)


def loops(case: Case) -> Iterator[tuple[str, ...]]:
    """What lies between a label and a later branch to it."""
    code = instructions(case)
    at = {line[:-1]: n for n, line in enumerate(code) if line.endswith(":")}
    for n, line in enumerate(code):
        target = re.fullmatch(r"BRA `\((\.L_x_\d+)\)", line)
        if target and at.get(target[1], n) < n:
            yield code[at[target[1]] : n + 1]


def main_loop(case: Case, instruction: str) -> tuple[str, ...]:
    """The shortest loop in which an instruction stands."""
    return min((loop for loop in loops(case) if any(i.startswith(instruction) for i in loop)), key=len)


def position(code: tuple[str, ...], instruction: str) -> int:
    return next(n for n, line in enumerate(code) if line.startswith(instruction))


def rings(case: Case) -> dict[str, int]:
    """Buffers in shared memory that are rings, and how deep."""
    found = re.findall(r"alloc (\w+): .*@place=shared.*@stages=(\d+)", stages(case).text("sched"))
    return {name: int(depth) for name, depth in found}


# ------------------------------------------------------------------------------------------------ A12
def test_A12_the_tile_follows_the_batch():
    """Rows of a tile by the number of rows; one row is a GEMV, of few rows a tile has all, more come in several."""
    designs = {m: stages(Case(sizes=(m, 4096, 4096))).request.design for m in (1, 16, 64, 128, 512, 2048)}
    tiles = {m: (d.number("tile.m"), d.number("tile.n")) for m, d in designs.items()}
    assert len(set(tiles.values())) >= 4, tiles
    assert [tiles[m][0] for m in (1, 16, 64)] == [1, 16, 64]
    assert designs[128].number("tile.m") * designs[128].number("cluster.m", 1) == 128
    assert {bool(designs[m].get("swap")) for m in (512, 2048)} == {False}


def test_A12_shared_memory_is_dynamic_and_follows_batch_and_length():
    """Bytes are an argument of the launch: none are static, and they grow with the tile and the steps of the sum."""
    by_batch = [stages(Case(sizes=(m, 4096, 4096))) for m in (16, 64, 2048)]
    by_length = [stages(Case(sizes=(16, 4096, k))) for k in (128, 256, 4096)]
    assert len({s.module.shared_bytes for s in by_batch}) == 3
    lengths = [s.module.shared_bytes for s in by_length]
    assert all(a < b for a, b in pairwise(lengths)), lengths
    for s in (*by_batch, *by_length):
        assert s.compiled.report.shared == 0
        assert "extern __shared__" in s.source
        assert s.module.shared_bytes <= s.machine.limit("shared_bytes_per_block")
        found = product(s.request.kernel)
        assert not isinstance(found, str)
        promised = Resources(found, s.request.design, s.request.facts(s.machine)).shared_bytes
        assert 0 <= promised - s.module.shared_bytes < 1024  # what legality counted is what is taken


# ------------------------------------------------------------------------------------------------ A13
@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_A13_copies_run_ahead_of_what_is_computed(machine):
    assert set(rings(Case(machine=machine))) >= {"s_a", "s_b"}
    assert min(rings(Case(machine=machine)).values()) >= 2


@pytest.mark.parametrize("machine", ["a100", "l40s"])
def test_A13_cp_async_fills_the_ring_before_the_first_wait(machine):
    """All but one stage are under way before anything is waited for; each pass starts a copy before it multiplies."""
    case = Case(machine=machine)
    code, loop = instructions(case), main_loop(case, "HMMA")
    before = code[: position(code, "DEPBAR.LE")]
    assert sum(i.startswith("LDGDEPBAR") for i in before) == rings(case)["s_a"] - 1
    assert sum(i.startswith("LDGSTS") for i in before) >= rings(case)["s_a"] - 1
    assert position(loop, "LDGSTS") < position(loop, "HMMA")
    assert not any(i.startswith("LDG.") for i in loop)


def test_A13_tma_runs_in_a_loop_of_its_own():
    """The producer's loop waits for free slots and nothing else; the consumers leave one product under way."""
    case = Case()
    copies, products = main_loop(case, "UTMALDG"), main_loop(case, "HGMMA")
    assert not any(i.startswith(("HGMMA", "WARPGROUP.DEPBAR", "BAR.SYNC")) for i in copies)
    assert not any(i.startswith(("UTMALDG", "BAR.SYNC", "LDG", "MEMBAR")) for i in products)
    assert any(re.match(r"WARPGROUP.DEPBAR.LE gsb0, 0x1", i) for i in products)


# ------------------------------------------------------------------------------------------------ A19
@pytest.mark.parametrize("element", ["bf16", "f16"])
@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_A19_tensor_cores_add_up_in_f32(machine, element):
    """Every product of the main loop is one of the matrix unit's, on 16-bit elements, with sums in f32."""
    case = Case(machine=machine, element=element)
    unit = "HGMMA" if machine == "h200" else "HMMA"
    found = {i.split(" ")[0] for i in instructions(case) if i.startswith(("HGMMA", "HMMA"))}
    narrow = ".BF16" if element == "bf16" else ""
    shape = "64x256x16" if machine == "h200" else "16816"
    assert found == {f"{unit}.{shape}.F32{narrow}"}
    assert not any(re.match(r"(FFMA|HFMA2|FMUL|FADD)\b", i) for i in main_loop(case, unit))
    assert re.search(r"acc0\b.*: f32\[m", stages(case).text("sched"))


OTHER_TYPES = [  # elements, precision, machine, the instruction that multiplies
    ("f32", "tf32", "h200", "HGMMA.64x256x8.F32.TF32"), ("f32", "tf32", "a100", "HMMA.1688.F32.TF32"),
    ("f32", "tf32", "l40s", "HMMA.1688.F32.TF32"), ("i8", None, "h200", "IGMMA.64x256x32.S8.S8"),
    ("i8", None, "a100", "IMMA.16832.S8.S8"), ("i8", None, "l40s", "IMMA.16832.S8.S8"),
]  # fmt: skip


@pytest.mark.parametrize(("element", "precision", "machine", "wanted"), OTHER_TYPES)
def test_A19_f32_as_tf32_when_asked_for_and_whole_numbers_of_8_bits(element, precision, machine, wanted):
    """Nothing but the program's types and the precision of its dot tells the unit what to take."""
    result = "f32" if element == "f32" else "i32"
    program = operators.matmul.kernel.trace({"a": element, "b": element, "c": result}, options={"precision": precision})
    m, n, k = LARGE
    sizes, layouts = {"M": m, "N": n, "K": k}, tuple((t, TensorLayout((4096, 1), 16)) for t in "abc")
    empty, known = Request(program, Design(), layouts, tuple(sizes.items())), Machine.named(machine)
    design = default_design(program, empty.facts(known))
    made = CudaStages(Request(program, design, layouts, tuple(sizes.items())), known)
    report = made.compiled.report
    assert (report.spill_stores, report.spill_loads) == (0, 0)
    found = set(re.findall(r"\b((?:HGMMA|IGMMA|HMMA|IMMA)\.[\w.]+)", made.text("sass")))
    assert found == {wanted}, found


# ------------------------------------------------------------------------------------------------ B11
def test_B11_the_ladder_of_a_product_was_measured_on_a_gpu_and_reported():
    """From one thread an output to the best: each rung with its rate, its share of torch's, and its gain."""
    found = {r.name: r for r in committed() if r.family == gemm_ladder.FAMILY}
    assert len(found) >= 12 and next(iter(found)) == gemm_ladder.names()[0]
    for n, rung in enumerate(found.values()):
        assert rung.error is None, rung.error
        assert {"gflops", "ratio", *(("step",) if n else ())} <= set(rung.metrics)
        assert rung.raw["samples_ns"]["tilewright"] and rung.raw["terms"]
    first, *_, last = (r.metrics["gflops"] for r in found.values())
    assert last > 100 * first
    reports = list((ROOT / "docs" / "reports" / "hgemm").glob("*/report.json"))
    assert any(len(read(p).ladder) == len(found) for p in reports)


# ------------------------------------------------------------------------------------------------- C5
WANTED = {
    "sm_80": (("LDGSTS", "LDSM", "HMMA"), ("HGMMA", "UTMALDG")),
    "sm_89": (("LDGSTS", "LDSM", "HMMA"), ("HGMMA", "UTMALDG")),
    "sm_90a": (("UTMALDG", "HGMMA", "SYNCS", "USETMAXREG"), ("HMMA", "LDGSTS")),
}


@pytest.mark.parametrize("operator", ["matmul", "gate_up"])
@pytest.mark.parametrize(("machine", "architecture"), ARCHITECTURES.items())
def test_C5_three_architectures_from_one_lowering(operator, machine, architecture):
    """One traced program, one entry to lowering and to the emitter; what differs is the machine's description."""
    case = Case(operator, machine=machine)
    made = stages(case)
    assert made.request.kernel is kernel(operator, "bf16")
    assert made.machine.architecture == architecture
    report = made.compiled.report
    assert (report.spill_stores, report.spill_loads, report.stack) == (0, 0, 0)
    there, absent = WANTED[architecture]
    code = {i.split(" ")[0].partition(".")[0] for i in instructions(case)}
    assert set(there) <= code
    assert not set(absent) & code


# ------------------------------------------------------------------------------------------------- C6
def test_C6_tiles_are_swizzled_and_copied_asynchronously_sixteen_bytes_at_a_time():
    """In every architecture's scheduled program; cp.async moves 16 bytes a thread, TMA rows of 128 bytes."""
    for machine in ARCHITECTURES:
        case = Case(machine=machine)
        allocs = re.findall(r"alloc (s_[ab]): .*", stages(case).text("sched"))
        swizzled = re.findall(r"alloc (s_[ab]): .*@layout=swizzle128 @place=shared", stages(case).text("sched"))
        assert swizzled == allocs == ["s_a", "s_b"]
        engine = "tma" if machine == "h200" else "cp_async"
        assert len(re.findall(rf"copy s_[ab]\[.*@engine={engine}", stages(case).text("sched"))) == 2
        if machine != "h200":
            copies = [i for i in instructions(case) if i.startswith("LDGSTS")]
            assert copies and all(re.match(r"LDGSTS\.E(\.\w+)*\.128\b", i) for i in copies)
    maps = {m.tensor: m for m in stages(Case()).module.maps if m.tensor in "ab"}
    assert {m.swizzle for m in maps.values()} == {128}
    assert all(m.box[0] * 2 == 128 for m in maps.values())


def test_C6_results_leave_sixteen_bytes_at_a_time():
    code = instructions(Case())
    assert any(i.startswith("UTMASTG") for i in code)
    assert not any(i.startswith("STG") for i in code)
    through = [i for i in code if i.startswith(("STS", "STSM"))]
    assert through and all(i.startswith("STSM.16.M88.4") for i in through)


def swizzled(row: int, chunk: int) -> int:
    """Where a chunk of 16 bytes of a row of 128 lies under the copy engine's swizzle (PTX ISA, 128-byte mode)."""
    return row * 128 + (chunk ^ row % 8) * 16


@pytest.mark.parametrize("chunk", range(8))
def test_C6_no_two_rows_of_a_matrix_lie_in_the_same_banks(chunk):
    """Eight rows at one column are what a phase of ldmatrix, and the matrix unit, read: one pass, and 8 unswizzled."""
    assert bank_passes([swizzled(row, chunk) for row in range(8)], 16) == 1
    assert bank_passes([row * 128 + chunk * 16 for row in range(8)], 16) == 8


@pytest.mark.parametrize("columns", [64, 32])
@pytest.mark.parametrize("warp", range(4))
def test_C6_stores_of_results_have_no_bank_conflicts(warp, columns):
    """The addresses are computed by the expressions that stand in the tile library's own `store_rows`."""
    text = nvrtc.header("tw/shared.cuh")
    text = text[text.index("store_rows") :]
    names = re.search(r"const int (lane = .*?), (row = .*?), (half = .*?);", text)
    turned = re.search(r"turned = COLUMNS == 64 \? (.*?) : (.*?);", text)
    place = re.search(r'"r"\(line \+ \((.*?)\) \* 16\)', text)
    assert names and turned and place and "row * (2 * COLUMNS)" in text
    for f in range(0, columns // 8, 2):
        addresses = []
        for thread in range(32 * warp, 32 * warp + 32):
            known = {"thread": thread, "f": f}
            for part in names.groups():
                name, _, value = part.partition(" = ")
                known[name] = eval(value.replace("/", "//"), {}, known)
            known["turned"] = eval(turned[1 if columns == 64 else 2], {}, known)
            addresses.append(known["row"] * 2 * columns + eval(place[1], {}, known) * 16)
        assert len(set(addresses)) == 32
        assert bank_passes(addresses, 16) == 4  # a quarter of the warp at a time: the least there is


# ------------------------------------------------------------------------------------------------- D1
def test_D1_producers_consumers_and_finish_are_roles_of_the_scheduled_program():
    """One role copies, one multiplies, and the same finishes: through shared memory, beside the next tile's copies."""
    text = stages(Case()).text("sched")
    producer, consumer, finish = re.split(r"\n *role ", text)[1:]
    assert producer.startswith("producer") and producer.count("@engine=tma") == 2 and " dot " not in producer
    assert consumer.startswith("consumer") and "@atom=wgmma" in consumer and "copy" not in consumer
    assert finish.startswith("consumer") and re.search(r"copy c\[m, n\] <- s_c\[m, n\] @engine=tma", finish)
    assert re.search(r"sync full wait .*@guards=\(s_a,s_b\)", consumer)
    assert re.search(r"sync empty arrive .*@guards=\(s_a,s_b\)", consumer)
    code = instructions(Case())
    given, taken = position(code, "USETMAXREG.DEALLOC"), position(code, "USETMAXREG.TRY_ALLOC")
    assert given != taken  # registers pass from producers to consumers
    assert any(i.startswith("SYNCS.PHASECHK") for i in main_loop(Case(), "HGMMA"))


def test_D1_clusters_share_what_they_read_by_multicast():
    text = stages(Case()).text("sched")
    assert re.search(r"for m1 in m0 step 128 parallel @bind=cluster", text)
    assert re.search(r"copy s_b\[.*@engine=tma @multicast=2", text)
    assert stages(Case()).module.grid.cluster == 2
    code = instructions(Case())
    assert any(i.startswith("UTMALDG.2D.MULTICAST") for i in code)
    assert any(i.startswith("UCGABAR") for i in code)
    assert not any(i.startswith(("MEMBAR", "CCTL")) for i in main_loop(Case(), "HGMMA"))


def test_D1_parts_of_a_sum_meet_in_distributed_shared_memory():
    """Each block of the cluster sends its part to the others' shared memory; nothing passes through global memory."""
    case = Case(sizes=FEW_ROWS)
    text = stages(case).text("sched")
    assert re.search(r"for ks in K step \d+ @bind=cluster @how=cluster", text)
    assert re.search(r"sync parts barrier @guards=\(acc0_parts\) @scope=cluster", text)
    assert stages(case).module.scratch == ()
    code = instructions(case)
    assert any(i.startswith("STAS") for i in code)  # st.async to shared memory of another block
    assert not any(i.startswith(("ATOM", "RED.")) for i in code)


# ------------------------------------------------------------------------------------------------- D2
def committed() -> list[Result]:
    """Results of the newest committed run of `tilewright bench gemm`; ArgumentError where there is none."""
    found = newest(ROOT / "benchmarks" / "results", "gpu")
    return list(max(found, key=lambda f: f[1]["date"])[1]["results"])


def ratios(family: str) -> list[float]:
    """How much faster than torch each case of a family is."""
    mine = [r for r in committed() if r.family == family]
    assert mine and [f"{r.name}: {r.error}" for r in mine if r.error] == []
    return [r.metrics["ratio"] for r in mine]


def test_D2_level_with_cublas_when_large_and_ahead_when_small_fused_or_odd():
    assert geometric_mean(ratios("gemm_small")) > 1.0
    assert geometric_mean(ratios("gemm_large")) >= 0.99
    assert min(ratios("gemm_large")) >= 0.85
    assert geometric_mean(ratios("gemm_fused")) > 1.0
    assert geometric_mean(ratios("gemm_odd")) >= 1.0


def recorded() -> list[tuple[Result, ir.Kernel, dict[str, int]]]:
    """Products that name a design, with the program and the sizes that it is of."""
    cases = {c.name: c for c in gemm_cases()}  # a search and a chain are of the product that they are named after
    found = []
    for r in committed():
        if r.family.startswith("gemm_") and "design" in (r.raw or {}):
            case = gemm_ladder.CASE if r.family == "gemm_ladder" else cases[r.name]
            found.append((r, _traced(case.epilogue), {"M": case.m, "N": case.n, "K": case.k}))
    return found


@cache
def _traced(epilogue: str) -> ir.Kernel:
    """As the bench traces a case of bf16."""
    if epilogue == "gate_up":
        return operators.gate_up.kernel.trace(dict.fromkeys(("x", "gate", "up", "y"), "bf16"))
    tensors = ("a", "b", "c", *{"bias_gelu": ["bias"], "residual": ["residual"]}.get(epilogue, []))
    options = {"activation": "gelu" if epilogue == "bias_gelu" else None}
    return operators.matmul.kernel.trace(dict.fromkeys(tensors, "bf16"), options=options)


def _facts(program: ir.Kernel, sizes: dict[str, int]) -> Facts:
    """Of dense rows, as torch lays them out."""
    rows = {p.name: [sizes[str(d)] for d in p.dims] for p in program.params if p.dims}
    layouts = tuple(
        (name, TensorLayout((*[None] * (len(n) - 1), 1), 2 if len(n) > 1 and n[-1] % 8 else 16))
        for name, n in rows.items()
    )
    return Request(program, Design(), layouts, tuple(sizes.items())).facts(Machine.named("h200"))


def test_D2_every_recorded_design_is_legal_today():
    """What was measured can still be built: a stricter rule would leave the table without its kernels.

    Rungs of the ladder are the file's own: those of the code may have other names and number since.
    """
    reasons = {
        f"{r.family} {r.name}": why
        for r, program, sizes in recorded()
        if (why := legal(program, _design(r.raw["design"]), _facts(program, sizes)))
    }
    products = [r for r in committed() if r.family.startswith("gemm_") and r.family != "gemm_launch"]
    assert len(recorded()) == len(products) > 100
    assert reasons == {}


def _design(decisions: dict[str, object]) -> Design:
    return Design.of({n: tuple(v) if isinstance(v, list) else v for n, v in decisions.items()})  # type: ignore[misc]


def test_D2_every_result_has_its_samples_and_its_noise():
    for r in committed():
        if r.family in ("gemm_small", "gemm_chain", "gemm_large", "gemm_fused", "gemm_odd"):
            assert r.raw["samples_ns"]["tilewright"] and r.raw["samples_ns"]["torch"], r.name
            assert r.metrics["noise"] >= 0 and r.raw["design"], r.name
