"""Parts of ranges as CUDA C++, compiled for three generations: what ptxas and the machine code say of them."""

import itertools
import re
from functools import cache

import pytest

from tilewright.build.cuda_kernel import CudaStages, build_cuda
from tilewright.build.kernel_cache import Request
from tilewright.build.nvrtc import missing
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.design.gpu.simt_mutations import Bring, suggested_simt
from tilewright.design.legality import legal
from tilewright.emit.abi import TensorLayout
from tilewright.emit.cuda_layouts import Spread
from tilewright.emit.cuda_warp import warp_dots
from tilewright.language.parser import parse
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS
from tilewright.runtime.compiled import dtypes_of
from tilewright.runtime.cuda.dispatch import requested
from tilewright.runtime.dispatch import Program
from tilewright.runtime.subject import Subject

compiled = pytest.mark.skipif(missing() is not None, reason="NVRTC is not installed")
SIZES = {"B": 16, "H": 8, "G": 4, "S": 1, "T": 4096, "N": 4096, "P": 16, "L": 256}


@cache
def stages(name="attention", head=128, element="bf16", machine="h200", more=(), **sizes):
    """All stages of attention by its default design, with some decisions changed."""
    scales = {"k_scale": "f32", "v_scale": "f32"}
    tensors = {
        p.name: element for p in OPERATORS[name].kernel.signature.params if p.name not in ("scale", "lse", *scales)
    }
    tensors |= {n: "i32" for n in ("lengths", "page_table") if n in tensors}
    if element == "f8e4m3":
        tensors |= {"q": "bf16", "o": "bf16", **scales}
    kernel = OPERATORS[name].kernel.trace(tensors, options={"causal": True})
    known = {d: {**SIZES, "D": head, "E": head, **sizes}[d] for d in kernel.dims}
    layouts = tuple((p.name, TensorLayout((*[None] * (len(p.dims) - 1), 1), 128)) for p in kernel.params if p.dims)
    unit = {n: (len(x.strides) - 1,) for n, x in layouts}
    facts = Facts(known, unit, Machine.named(machine), frozenset(unit), frozenset("DE"))
    design = Design.of({**dict(default_design(kernel, facts).decisions), **dict(more)})
    assert legal(kernel, design, facts) == [], legal(kernel, design, facts)
    return CudaStages(Request(kernel, design, layouts, (("D", head), ("E", head))), facts.machine)


def instructions(built):
    return re.findall(r"^\s+/\*[0-9a-f]{4}\*/\s+(?:@!?U?P\w+ +)?([A-Z][A-Z0-9.]*)", built.text("sass"), re.MULTILINE)


@compiled
@pytest.mark.parametrize("machine", ["a100", "rtx4090", "h200"])
@pytest.mark.parametrize("head", [64, 128])
@pytest.mark.parametrize("name", ["attention", "paged_attention"])
def test_keys_and_values_are_read_sixteen_bytes_at_once_and_multiplied_by_the_matrix_unit(name, head, machine):
    built = stages(name, head, machine=machine)
    report = built.compiled.report
    assert report.spill_stores == report.stack == 0
    code = instructions(built)
    wide = [i for i in code if re.match(r"LDGSTS.*\.128|LDG.*\.128", i)]
    assert len(wide) >= 8  # keys and values of one step
    assert any(i.startswith("HMMA.16816") for i in code)
    assert not any(i.startswith(("LDL", "STL")) for i in code)


@compiled
@pytest.mark.parametrize("head", [64, 80, 96, 128, 256])
def test_every_size_of_a_head_fits_in_registers(head):
    assert stages(head=head).compiled.report.spill_stores <= 128


@compiled
@pytest.mark.parametrize("name", ["attention", "paged_attention"])
def test_elements_of_four_bytes_are_multiplied_by_fma(name):
    built = stages(name, element="f32")
    assert built.compiled.report.spill_stores == 0
    assert not any(i.startswith("HMMA") for i in instructions(built))
    assert any(i.startswith("FFMA") for i in instructions(built))


@compiled
@pytest.mark.parametrize("name", ["attention", "paged_attention"])
def test_steps_that_are_fetched_ahead_wait_for_nobody_else(name):
    """Each thread reads back what it copied itself: no barrier of the block stands between copies and products."""
    code = instructions(stages(name, more=(("stages", 2),)))
    first = next(n for n, i in enumerate(code) if i.startswith("LDGSTS"))
    last = max(n for n, i in enumerate(code) if i.startswith("HMMA"))
    assert not any(i.startswith("BAR") for i in code[first:last])
    assert sum(i.startswith("LDGSTS") and i.endswith(".128") for i in code) >= 32  # to begin with, and each step


@compiled
@pytest.mark.parametrize("name", ["attention", "paged_attention"])
def test_the_copy_engine_brings_what_is_on_its_way(name):
    keys = ("k", "v") if name == "attention" else ("k_pages", "v_pages")
    more = (("stages", 2), ("resident", 3), *((f"engine.{t}", "tma") for t in keys))
    built = stages(name, more=more)
    assert [(m.tensor, m.swizzle, m.box[0]) for m in built.module.maps] == [(t, 128, 64) for t in keys]
    code = instructions(built)
    assert any(i.startswith("UTMALDG.4D") for i in code)
    assert not any(i.startswith("LDGSTS") for i in code)
    assert built.compiled.report.spill_stores == 0


@compiled
@pytest.mark.parametrize("name", ["attention", "paged_attention"])
def test_the_next_step_comes_into_registers_as_this_one_is_used(name):
    """Keys are asked for again behind the first dot of a step, values behind the second; nothing is shared or spilt."""
    keys = ("k", "v") if name == "attention" else ("k_pages", "v_pages")
    more = (("stages", 1), ("resident", 3), *((f"engine.{t}", "registers") for t in keys))
    built = stages(name, 64, more=more)
    code = [i for i in instructions(built) if re.match(r"HMMA|LDG\..*128|LDGSTS|UTMALDG", i)]
    assert not any(i.startswith(("LDGSTS", "UTMALDG")) for i in code)
    runs = [(k, len(list(g))) for k, g in itertools.groupby(i[:4] for i in code)]
    loads = runs[-1][1]  # of values, behind the last products
    assert [k for k, _ in runs[-4:]] == ["HMMA", "LDG.", "HMMA", "LDG."] and runs[-3][1] == loads >= 4
    assert built.compiled.report.spill_stores == 0
    assert built.module.shared_bytes == stages(name, 64).module.shared_bytes


@pytest.mark.parametrize(
    ("batch", "head", "element", "wanted"),
    [
        (1, 128, "bf16", {"stages": 2, "engine.k": "tma", "part.t": 256}),  # one block for each SM, which reads ahead
        (1, 64, "bf16", {"stages": 2, "engine.k": "tma", "part.t": 256}),
        (64, 128, "bf16", {"stages": None, "engine.k": None, "part.t": 2048}),  # several, which load for themselves
        (64, 64, "bf16", {"stages": None, "cache.k": "strong", "part.t": 2048}),
        (64, 128, "f8e4m3", {"stages": 4, "engine.k": "tma"}),
        (64, 64, "f8e4m3", {"stages": 1, "engine.k": "registers", "warps": 8}),  # short rows: the next step is held
    ],
)
def test_few_tiles_and_eight_bits_are_read_ahead_and_many_tiles_at_once(batch, head, element, wanted):
    design = stages(head=head, element=element, B=batch).request.design
    assert {name: design.get(name) for name in wanted} == wanted
    assert design.get("turns") is True
    older = stages(head=head, element=element, B=batch, machine="a100").request.design
    assert older.get("stages") is None and older.get("resident") is None


def test_short_steps_of_pages_hold_the_next_one():
    for batch, wanted in ((64, "registers"), (1, "tma")):
        assert stages("paged_attention", 64, B=batch).request.design.get("engine.k_pages") == wanted
    assert stages("paged_attention", 128, B=64).request.design.get("engine.k_pages") is None


@compiled
@pytest.mark.parametrize("head", [64, 128])
def test_keys_of_eight_bits_beside_wide_queries_fit_in_registers(head):
    """They are widened where they are loaded: a load of 16 of them would be 16 registers."""
    sizes = {"B": 1, "H": 1, "G": 4, "S": 17, "D": head, "T": 1024, "E": head}
    types = dict.fromkeys(("q", "o", "k_scale", "v_scale"), "f32") | {"k": "f8e4m3", "v": "f8e4m3", "lengths": "i32"}
    h200, present = Machine.named("h200"), ("lengths", "k_scale", "v_scale")
    s = Subject.of("attention", sizes, types, options={"causal": True}, present=present, machine=h200)
    design = default_design(s.kernel, s.facts)
    built = build_cuda(requested(Program.of(s.kernel), s.layouts, s.sizes, h200, design, s.settled), h200)
    assert built.report.spill_stores == 0


@pytest.mark.parametrize(("head", "keys", "longer"), [(128, 64, 1024), (64, 64, 1024), (64, 128, 2048)])
def test_a_warp_that_has_one_step_loads_it_itself(head, keys, longer):
    """What is read ahead is waited for at the beginning, and of one step there is nothing else."""
    design = stages(head=head, B=1, T=longer).request.design
    assert (design.get("part.t"), design.get("tile.t"), design.get("resident")) == (keys, keys // 4, 3)
    assert not any(design.get(name) for name in ("turns", "stages", "engine.k", "engine.v"))
    assert stages(head=head, B=1, T=4096).request.design.get("engine.k") == "tma"
    assert stages(head=head, element="f8e4m3", B=1, T=1024).request.design.get("engine.k") == "tma"


def test_warps_take_the_steps_of_a_part_in_turns():
    """Each begins a step behind the one before it, and goes on by as many steps as there are warps, rings included."""
    plain, turns = (stages(more=(("part.t", 1024), ("turns", wanted))) for wanted in (False, True))
    assert "tw_at = ts_at + warp * 256" in plain.module.source
    source = turns.module.source
    assert "tw_at = ts_at + warp * 16, tw_stop = ts_stop" in source
    assert re.search(r"for \(int t_at = tw_at; t_at < tw_stop; t_at \+= 64\)", source)
    assert "for (int from = 0; from < 4 && from * 16 < ts_stop - ts_at; ++from)" in source
    more = (("part.t", 1024), ("turns", True), ("stages", 2), ("engine.k", "tma"), ("engine.v", "tma"))
    assert "t_next += 64;" in stages(more=more).module.source


@compiled
@pytest.mark.parametrize("head", [64, 96, 128])
@pytest.mark.parametrize("name", ["attention", "paged_attention"])
def test_eight_bits_are_widened_two_at_once_and_multiplied_by_the_matrix_unit(name, head):
    built = stages(name, head, "f8e4m3")
    code = instructions(built)
    assert built.compiled.report.spill_stores == built.compiled.report.stack == 0
    assert any(i.startswith("F2FP.F16.E4M3") for i in code) and any(i.startswith("HMMA.16816") for i in code)
    widths = [i for i in code if i.startswith("LDG.E")]
    assert head % 128 or sum(i.startswith("LDG.E.128") for i in widths) >= 8  # half as many as of 16 bits, and queries


@compiled
def test_blocks_past_the_end_of_a_range_leave_before_they_read_any_of_it():
    code = instructions(stages(more=(("part.t", 256),)))
    assert code.index("EXIT") < next(n for n, i in enumerate(code) if i.startswith(("LDGSTS", "LDG.E.128")))


def test_a_launch_has_a_block_for_each_part_and_scratch_for_its_states():
    module = stages(more=(("part.t", 256),)).module
    sizes = {**SIZES, "D": 128, "E": 128}
    assert module.grid.blocks(sizes, 132) == 16 * 8 * 16
    assert module.grid.blocks({**sizes, "T": 0}, 132) == 16 * 8  # a tile without a range is written too
    assert module.grid.blocks({**sizes, "T": 257}, 132) == 16 * 8 * 2
    sums, totals, tops, tickets = sorted(module.scratch, key=lambda s: -s.reserve.bytes(sizes))
    assert sums.reserve.bytes(sizes) == 16 * 8 * 16 * 4 * 128 * 4
    assert totals.reserve.bytes(sizes) == tops.reserve.bytes(sizes) == 16 * 8 * 16 * 4 * 4
    assert tickets.zeroed and tickets.reserve.bytes(sizes) == 16 * 8 * 4


def test_a_page_table_is_asked_for_before_the_length_of_the_request_is_known():
    """Its place follows from the block's number alone; it never leads past the table."""
    source = stages("paged_attention").module.source
    asked = source.index("tw::ask(page_table + (tw::i64)(b) * page_table_stride0")
    assert source.index("const int b = ") < asked < source.index("lengths0 = lengths[b]")
    assert re.search(r"tw::ask\(.*, min\((\d+), L - part \* \1\)\);", source)
    assert "tw::ask(" not in stages().module.source


def test_how_long_a_page_is_is_a_part_of_the_kernel():
    from tilewright.design.gpu.rows import fixed_dims, inner_dims

    for name, dims in (("paged_attention", ("P",)), ("attention", ()), ("rmsnorm", ())):
        kernel = OPERATORS[name].kernel.trace(dtypes_of(OPERATORS[name].kernel, "bf16"))
        assert inner_dims(kernel) == dims
    assert fixed_dims(kernel) == ("D",)


@pytest.mark.parametrize(("name", "axis", "each"), [("attention", "t", 1), ("paged_attention", "l", 16)])
def test_parts_are_shorter_where_lengths_are_data_but_never_short(name, axis, each):
    def keys(**sizes):
        design = Design.of(dict(stages(name, **sizes).request.design.decisions))
        return design.number(f"part.{axis}") * each

    even = keys(B=64, T=4096, L=256)  # attention is traced with lengths here, as pages always are
    assert even == 2048 and keys(B=64, T=1024, L=64) == 1024
    rows = OPERATORS["attention"].kernel.trace(dict.fromkeys("qkvo", "bf16"), options={"causal": True})
    sizes = {d: {**SIZES, "D": 128, "E": 128, "B": 64}[d] for d in rows.dims}
    unit = {p.name: (len(p.dims) - 1,) for p in rows.params if p.dims}
    facts = Facts(sizes, unit, Machine.named("h200"), frozenset(unit), frozenset("DE"))
    assert default_design(rows, facts).number("part.t") == 4096


@pytest.mark.parametrize(("name", "head", "element", "warps"), [
    ("attention", 128, "bf16", 4), ("paged_attention", 128, "bf16", 4), ("attention", 64, "bf16", 4),
    ("paged_attention", 64, "bf16", 8), ("attention", 128, "f8e4m3", 8),
])  # fmt: skip
def test_few_requests_get_more_warps_where_a_step_is_short(name, head, element, warps):
    design = stages(name, head, element, B=1, T=32768, L=2048, N=2048).request.design
    assert design.number("warps") == warps and design.number("stages") == 2
    assert design.number("warps") * design.number("resident") <= 12


# -------------------------------------------------------------------------------------------------- fragments
SCORES = """kernel k(q: bf16[G, S, D], k: bf16[T, D], o: f32[G, S, T]) {
  for g in G step 4, s in S step 4, t in T step 32 parallel {
    a = load q[g, s, D] : bf16[g, s, D]
    b = load k[t, D] : bf16[t, D]
    d = dot a b over D : f32[g, s, t] @atom=mma
    store o[g, s, t] = d
  }
}"""


def owners(dist, points):
    """position -> (thread, register) of a distribution over a warp."""
    registers = dist.groups * dist.run
    return {
        (r // dist.run << dist.bits) * dist.run + r % dist.run + (t >> dist.low & (1 << dist.bits) - 1) * dist.run: (
            t,
            r,
        )
        for r in range(registers)
        for t in range(32)
    }


def test_rows_columns_and_sums_lie_as_mma_wants_them():
    """PTX ISA, mma.m16n8k16: rows by bits 2 to 4 of the lane and a register, columns and the sum by bits 0 and 1."""
    found = warp_dots(parse(SCORES).body, {"g": 4, "s": 4, "t": 32, "D": 128})
    assert found.of["s"] == Spread(1, 1, 2, 2)
    assert found.of["g"] == Spread(2, 1, 4, 1)
    assert found.of["D"] == Spread(4, 8, 0, 2)
    assert found.of["t"] == Spread(8, 2, 0, 2) or found.of["t"].low == 0
    assert found.loaded == {"b": ("t",)} and found.calls == {"d": "tw::multiply<own::t, own::t_twin>"}


@pytest.mark.parametrize("points", [16, 32, 64, 96, 128, 256])
def test_a_column_of_the_result_is_the_same_column_of_the_operand(points):
    """Column c of fragment n belongs to lanes c of the operand's bits 2 to 4, and to lane c / 2 of the result."""
    found = warp_dots(parse(SCORES).body, {"g": 4, "s": 4, "t": points, "D": 64})
    result, operand = found.of["t"], found.of["t_twin"]
    half = operand.run
    for position, (thread, register) in owners(operand, points).items():
        column, fragment = thread >> 2 & 7, register
        lane, place = column // 2, column % 2
        r = fragment // half * 2 * half + place * half + fragment % half
        there = (r // result.run << 2) * result.run + r % result.run + lane * result.run
        assert there == position


def facts_of(request):
    unit = {n: (len(x.strides) - 1,) for n, x in request.layouts}
    return Facts({**SIZES, "D": 64, "E": 64}, unit, Machine.named("h200"), frozenset(unit), frozenset("DE"))


@pytest.mark.parametrize(
    ("decisions", "reason"),
    [
        ({"engine.k": "registers", "engine.v": "registers", "stages": 2}, "take stages=1 and atom=mma"),
        (
            {"engine.k": "registers", "engine.v": "registers", "stages": 1, "atom.dot0": "fma", "atom.dot1": "fma"},
            "mma",
        ),
        ({"engine.k": "registers", "stages": 1}, "one for all of k, v"),
        ({"engine.k": "dma", "engine.v": "dma", "stages": 1}, "takes tma, cp_async or registers"),
    ],
)
def test_what_registers_cannot_hold_is_refused_with_what_to_take(decisions, reason):
    request = stages(head=64).request
    changed = Design.of({**dict(request.design.decisions), **decisions})
    assert any(reason in r.message for r in legal(request.kernel, changed, facts_of(request)))


def test_registers_are_a_move_of_the_search_and_hold_one_step():
    request = stages(head=64).request
    moves = suggested_simt(request.kernel, request.design, facts_of(request))
    (move,) = {m for m in moves if isinstance(m, Bring) and m.engine == "registers"}
    moved = move.apply(request.design)
    assert (moved.get("stages"), moved.get("engine.k"), moved.get("engine.v")) == (1, "registers", "registers")
