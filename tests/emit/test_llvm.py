"""Compiled kernels against the float64 reference: every operator, element type, layout and vector width."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases import FLOATS, Case, Memory
from compiled import LAYOUTS, SSE2, Guarded, Run, machines
from drawn import BUILDERS, case, elements
from hypothesis import given, settings
from hypothesis import strategies as st
from tile_registers import TileRegisters

from tilewright import operators
from tilewright.build.jit import assemble
from tilewright.build.kernel_cache import target_of
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.emit.abi import TensorLayout
from tilewright.emit.llvm import VectorUnit, emit
from tilewright.language.interpreter import run
from tilewright.lower.stages import lower
from tilewright.machines.machine import Machine
from tilewright.runtime import tolerance

# A kernel is compiled for each layout and each set of options, so few examples meet many kernels.
few = settings(max_examples=12, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)
layouts = st.sampled_from(LAYOUTS)
# Sizes that default designs are made for: the kernel then serves whatever sizes are drawn.
PRODUCTS = {"few rows": {"M": 3, "N": 50, "K": 600}, "many rows": {"M": 100, "N": 200, "K": 600}}
# A nest that is cut into blocks of the sum writes its result after the last block: there must be one.
_CUT = frozenset({"matmul", "gate_up", "batched_matmul"})


def design_sizes(name, data, drawn):
    if name not in _CUT:
        return {d: 64 for d in ("M", "S", "T", "N", "P", "G") if d in drawn}
    chosen = PRODUCTS[data.draw(st.sampled_from(sorted(PRODUCTS)))]
    return chosen if drawn["K"] else {**chosen, "K": 0}


@pytest.mark.parametrize("bits", ["128", "256", "512"])
@pytest.mark.parametrize("name", BUILDERS)
def test_generic_kernel(name, bits):
    """One kernel with symbolic sizes serves every shape that is drawn."""
    if bits not in machines():
        pytest.skip(f"this processor has no vectors of {bits} bits")

    @few
    @given(st.data(), seeds, layouts, elements)
    def check(data, seed, layout, kind):
        memory = Guarded(seed, layout)
        drawn = Run(case(data.draw, name, memory, kind), memory, machines()[bits])
        drawn.check(drawn.kernel(sizes=design_sizes(name, data, drawn.sizes)))

    check()


@pytest.mark.parametrize("name", BUILDERS)
def test_kernel_of_one_shape(name):
    """All sizes are part of the kernel: loops have constant ends, and remainders are written out."""

    @settings(few, max_examples=4)
    @given(st.data(), seeds, layouts, elements)
    def check(data, seed, layout, kind):
        memory = Guarded(seed, layout)
        drawn = Run(case(data.draw, name, memory, kind), memory, machines()[max(machines())])
        facts = drawn.facts()
        known = Facts(facts.sizes, facts.unit, facts.machine, facts.aligned, frozenset(facts.sizes))
        drawn.check(drawn.kernel(default_design(drawn.program, known), fixed=True))

    check()


@pytest.mark.parametrize("name", ["matmul", "rmsnorm", "attention", "rope_cache"])
def test_interpreter_and_kernel_agree_on_the_scheduled_program(name):
    @settings(few, max_examples=6)
    @given(st.data(), seeds, layouts, elements)
    def check(data, seed, layout, kind):
        memory = Guarded(seed, layout)
        drawn = Run(case(data.draw, name, memory, kind), memory, machines()[max(machines())])
        kernel = drawn.kernel()
        expected = drawn.case.expected()
        copies = {n: x.copy() for n, x in drawn.tensors.items()}
        run(lower(drawn.program, kernel.design), copies, drawn.case.scalars, seed=seed)
        for output, actual in drawn.outputs(kernel).items():
            tolerance.check(f"compiled {output}", actual, expected[output])
            tolerance.check(f"interpreted {output}", copies[output], expected[output])

    check()


@pytest.mark.parametrize("bits", ["128", "256", "512"])
@pytest.mark.parametrize("terms", [1, 31, 128, 389])
def test_sums_split_over_accumulators(bits, terms):
    """Products and reductions, with whole tiles, remainders, or less than one vector."""
    if bits not in machines():
        pytest.skip(f"this processor has no vectors of {bits} bits")
    machine, memory = machines()[bits], Guarded(terms, "rows")
    lanes = int(bits) // 32
    inputs = {"a": memory.normal((2, terms)), "b": memory.normal((9, terms))}
    drawn = Run(
        Case(operators.matmul, inputs, {"c": ((2, 9), np.float32)}, options={"activation": None}), memory, machine
    )
    tiles = {"tile.m": 1, "tile.n": 2, "tile.k": 4 * lanes, "lanes": ("k", "n")}
    for times in (2, 4):
        drawn.check(drawn.kernel(Design.of({**tiles, "split.k": times})))
    inputs = {"x": memory.normal((3, terms)), "weight": memory.normal((terms,))}
    drawn = Run(Case(operators.rmsnorm, inputs, {"y": ((3, terms), np.float32)}, {"eps": 1e-5}), memory, machine)
    tiles = {"tile.d": 4 * lanes, "tile.d1": lanes, "lanes": ("d", "d1"), "split.d": 4}
    drawn.check(drawn.kernel(Design.of(tiles)))


AMX_INT8 = {
    "tile.m": 32, "tile.n": 32, "tile.k": 64, "lanes": ("n",), "atom.dot0": "amx_int8", "pack.a": "tile",
    "pack.b": "quad",
}  # fmt: skip
AMX_BF16 = {**AMX_INT8, "tile.k": 32, "atom.dot0": "amx_bf16", "pack.b": "pair"}
TURNED = {"lanes": ("m",), "pack.b": "tile"}  # the rows of the result across lanes, the weights as rows of tiles
IN_PLACE = {"pack.a": None}  # rows of tiles from where they lie
IN_BLOCKS = {"block.m": 32, "block.n": 64, "block.k": 128, "local.b": True, "inner": ("n", "m")}
TALL, WIDE = (
    {"tile.m": 96, "tile.n": 16},
    {"tile.m": 16, "tile.n": 80},
)  # many parts of one operand pass by one of the other


@pytest.mark.parametrize("layout", ["rows", "columns", "any"])
@pytest.mark.parametrize("shape", [(16, 32, 64), (32, 32, 128), (37, 45, 200), (5, 3, 7), (70, 33, 129)])
@pytest.mark.parametrize("atom, changes", [
    ("i8", {}), ("i8", {**TURNED, "pack.a": "quad"}), ("i8", IN_BLOCKS),
    ("bf16", {}), ("bf16", {**TURNED, "pack.a": "pair"}), ("bf16", IN_BLOCKS),
    ("bf16", IN_PLACE), ("bf16", {**IN_BLOCKS, **IN_PLACE}), ("i8", IN_PLACE),
    ("bf16", {**TURNED, "pack.a": "pair", "pack.b": None}),
    ("bf16", TALL), ("bf16", WIDE), ("bf16", {**TALL, **IN_PLACE}), ("bf16", {**WIDE, **TURNED, "pack.a": "pair"}),
    ("i8", {**TALL, "unroll.k": 2}),
])  # fmt: skip
def test_products_of_tile_registers(atom, changes, shape, layout):
    """By registers in NumPy, on any processor: whole tiles, ragged ones, both operands either way, packed in blocks."""
    (m, n, k), memory = shape, Guarded(sum(shape), layout)
    if atom == "i8":
        a, b = (memory.laid_out(memory.random.integers(-128, 128, s).astype(np.int8)) for s in ((m, k), (n, k)))
    else:
        a, b = memory.normal((m, k), FLOATS[1]), memory.normal((n, k), FLOATS[1])
    outputs = {"c": ((m, n), np.int32 if atom == "i8" else np.float32)}
    case_ = Case(operators.matmul, {"a": a, "b": b}, outputs, options={"activation": None})
    drawn = Run(case_, memory, Machine.named("sapphire-rapids"))
    registers = TileRegisters()
    decisions = {**(AMX_INT8 if atom == "i8" else AMX_BF16), **changes}
    design = Design.of({name: choice for name, choice in decisions.items() if choice is not None})
    if layout != "rows" and len(design.names("lanes")) and len(list(design.prefixed("pack"))) < 2:
        assert any("packed memory" in str(reason) for reason in legal(drawn.program, design, drawn.facts()))
        return
    assert not legal(drawn.program, design, drawn.facts({"M": 512, "N": 512, "K": 512}))
    drawn.check(registers.kernel(drawn, design))
    assert not registers.wrong
    assert registers.products and not registers.configured
    if atom == "i8":
        assert (drawn.tensors["c"] == a.astype(np.int32) @ b.astype(np.int32).T).all()


@pytest.mark.parametrize("shape", [(1, 5, 64), (1, 64, 100), (3, 17, 133), (16, 40, 257), (4, 4, 0), (2, 3, 7)])
def test_bytes_are_multiplied_exactly(shape):
    """Pairs of bytes by vpdpwssd, the extremes among them; and the same sums by single products, on any machine."""
    m, n, k = shape
    memory = Guarded(m, "rows")
    a, b = (memory.laid_out(memory.random.integers(-128, 128, s).astype(np.int8)) for s in ((m, k), (n, k)))
    a[..., :1], b[..., :1] = -128, -128
    inputs, outputs = {"a": a, "b": b}, {"c": ((m, n), np.int32)}
    exact = a.astype(np.int32) @ b.astype(np.int32).T
    for machine in machines().values():
        drawn = Run(Case(operators.matmul, inputs, outputs, options={"activation": None}), memory, machine)
        tiles = {"tile.m": 2, "tile.n": 4, "tile.k": 64, "lanes": ("k", "n"), "split.k": 2}
        designs = [default_design(drawn.program, drawn.facts()), Design.of({**tiles, "split.k": 1})]
        if machine.has("avx512vnni"):
            designs.append(Design.of({**tiles, "atom.dot0": "vnni"}))
        if machine.has("amx-int8"):
            designs.append(Design.of(AMX_INT8))
        for design in designs:
            drawn.check(drawn.kernel(design))
            assert (drawn.tensors["c"] == exact).all(), design


@pytest.mark.parametrize("bits", ["128", "256", "512"])
@pytest.mark.parametrize("rows", [1, 5, 16, 63, 64, 150])
def test_tiles_whose_points_lie_apart(bits, rows):
    """Blocks of runs that are whole, short of some rows, or short of whole runs; sums along lanes, and plain rows."""
    if bits not in machines():
        pytest.skip(f"this processor has no vectors of {bits} bits")
    machine, memory = machines()[bits], Guarded(rows, "rows")
    lanes = int(bits) // 32
    inputs = {"a": memory.normal((2, 70)), "b": memory.normal((rows, 70))}
    product = Run(
        Case(operators.matmul, inputs, {"c": ((2, rows), np.float32)}, options={"activation": None}), memory, machine
    )
    for along in (("k", "n"), ("k",), ("n",), ("m", "n")):
        tiles = {"tile.m": 2, "tile.n": 4, "tile.k": 2 * lanes if "k" in along else 1, "lanes": along}
        product.check(product.kernel(Design.of({**tiles, "apart.n": 16})))
        product.check(product.kernel(Design.of({**tiles, "apart.n": 3, "apart.m": 2, "order": ("n", "m")})))
        product.check(product.kernel(Design.of({**tiles, "apart.n": 2, "ahead.b0": 3})))
    x = {"x": memory.normal((rows, 40)), "weight": memory.normal((40,))}
    normed = Run(Case(operators.rmsnorm, x, {"y": ((rows, 40), np.float32)}, {"eps": 1e-5}), memory, machine)
    tiles = {"tile.m": 3, "tile.d": lanes, "tile.d1": lanes, "lanes": ("d", "d1")}
    normed.check(normed.kernel(Design.of({**tiles, "apart.m": 7, "prefetch.x0": 1})))


@pytest.mark.parametrize("rows", [1, 4, 7, 40])
@pytest.mark.parametrize("columns", [40, 64])
def test_rows_of_several_around_the_caches(rows, columns):
    """Rows that a last tile lacks are not written, and those that it has are, whether their lanes are full or not."""
    machine, memory = Machine.detect(), Guarded(rows, "aligned")
    x = {"x": memory.normal((rows, columns)), "weight": memory.normal((columns,))}
    tiles = {"tile.m": 4, "tile.d": 64, "tile.d1": 64, "lanes": ("d", "d1"), "nontemporal.y": True, "prefetch.x1": 1}
    normed = Run(Case(operators.rmsnorm, x, {"y": ((rows, columns), np.float32)}, {"eps": 1e-5}), memory, machine)
    normed.check(normed.kernel(Design.of(tiles)))
    a = {"a": memory.normal((rows, columns)), "b": memory.normal((rows, columns))}
    added = Run(Case(operators.scale_add, a, {"c": ((rows, columns), np.float32)}, {"alpha": 0.5}), memory, machine)
    added.check(added.kernel(Design.of({"tile.m": 3, "tile.d": 32, "lanes": ("d",), "nontemporal.c": True})))


@pytest.mark.parametrize("rows", [1, 4])
def test_stores_around_the_caches_are_such_stores(rows):
    """Also where a tile has several rows, of which the last ones may not exist."""
    program = operators.rmsnorm.kernel.trace("f32")
    layouts = {p.name: TensorLayout((None,) * (len(p.dims) - 1) + (1,), 64) for p in program.params if p.dims}
    tiles = {"tile.m": rows, "tile.d": 64, "tile.d1": 64, "lanes": ("d", "d1")}
    machine = Machine.named("sapphire-rapids")
    around, plain = (
        assembly(program, Design.of({**tiles, **more}), layouts, machine) for more in ({"nontemporal.y": True}, {})
    )
    assert around.count("vmovntps") == 4 * rows
    assert "vmovntps" not in plain


def test_what_is_fetched_ahead_is_asked_for_line_by_line_beside_the_loads():
    program = operators.rmsnorm.kernel.trace("f32")
    layouts = {p.name: TensorLayout((None,) * (len(p.dims) - 1) + (1,), 64) for p in program.params if p.dims}
    tiles = {"tile.m": 1, "tile.d": 64, "tile.d1": 64, "lanes": ("d", "d1"), "prefetch.x1": 1}
    text = assembly(program, Design.of(tiles), layouts, Machine.named("sapphire-rapids"))
    fetches = [n for n, line in enumerate(text.splitlines()) if "prefetcht0" in line]
    assert len(fetches) >= 4
    assert all(later - sooner > 1 for sooner, later in itertools.pairwise(fetches))


@pytest.mark.parametrize("threads", ["1", "2", "3"])
@pytest.mark.parametrize("rows", [1, 2, 7, 40])
def test_tiles_in_turns_or_drawn_are_those_of_runs_bit_for_bit(threads, rows, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_THREADS", threads)
    monkeypatch.setattr("tilewright.runtime.launch._WORTH_A_TEAM", 0.0)
    machine, memory = replace(machines()["128"], cores=4), Guarded(rows, "rows")
    inputs = {"a": memory.normal((rows, 33)), "b": memory.normal((50, 33))}
    product = Case(operators.matmul, inputs, {"c": ((rows, 50), np.float32)}, options={"activation": None})
    q, k, v = (memory.normal(shape) for shape in ((2, 3, 1, rows, 16), (2, 3, 43, 16), (2, 3, 43, 16)))
    seen = Case(
        operators.attention, {"q": q, "k": k, "v": v}, {"o": (q.shape, np.float32)}, {"scale": 0.25},
        {"causal": True, "window": None},
    )  # fmt: skip
    for each in (product, seen):
        drawn = Run(each, memory, machine)
        design = default_design(drawn.program, drawn.facts())
        in_runs = {n: x.copy() for n, x in drawn.outputs(drawn.kernel(design)).items()}
        for dealt in ("turns", "drawn", "drawn"):  # the second time counters are as the first call left them
            for name in in_runs:
                drawn.tensors[name][...] = np.nan
            drawn.check(drawn.kernel(design.with_(dealt=dealt)))
            for name, x in in_runs.items():
                assert np.array_equal(x, drawn.tensors[name]), (name, dealt)


_BOTH = {"atom.dot0": "bf16x2", "atom.dot1": "bf16x2"}
_ALONG = {"lanes": ("D", "E", "t"), "tile.g": 2, "tile.s": 2, "tile.t": 16}
_ACROSS = {"lanes": ("E", "s", "t", "D"), "tile.g": 1, "tile.s": 16, "tile.t": 8}


@pytest.mark.parametrize(
    "decisions",
    [
        {**_ALONG, "atom.dot0": "bf16x2"},
        {**_ALONG, "atom.dot1": "bf16x2"},
        {**_ALONG, **_BOTH},
        {**_ACROSS, **_BOTH},
        {**_ACROSS, **_BOTH, "lanes": ("E", "s", "D"), "tile.t": 4},
    ],
)
def test_attention_in_pairs(decisions):
    """Scores of pairs as they lie, probabilities from registers; NaN behind each sequence, where a pair may end too."""
    machine = machines().get("512")
    if machine is None or not machine.has("avx512bf16"):
        pytest.skip("this processor does not multiply pairs of bf16")
    bf16, memory = FLOATS[1], Guarded(0, "rows")
    for queries, keys, lengths in ((1, 9, (9, 1)), (19, 40, (40, 21)), (33, 33, (33, 33)), (16, 16, (0, 7))):
        q, k, v = (memory.normal((2, 2, 2, n, 64), bf16) for n in (queries, keys, keys))
        inputs = {"q": q, "k": k[:, :, 0], "v": v[:, :, 0], "lengths": memory.laid_out(np.array(lengths, np.int32))}
        for i, length in enumerate(lengths):
            inputs["k"][i, :, length:], inputs["v"][i, :, length:] = np.nan, np.nan
        call = Case(
            operators.attention, inputs, {"o": (q.shape, bf16)}, {"scale": 0.125}, {"causal": True, "window": None}
        )
        drawn = Run(call, memory, machine)
        drawn.check(drawn.kernel(Design.of(decisions)))


@pytest.mark.parametrize("columns", [1, 63, 65, 300])
def test_a_kept_row_has_room_for_whole_tiles(columns):
    memory = Guarded(columns, "rows")
    x = {"x": memory.normal((3, columns))}
    drawn = Run(Case(operators.softmax, x, {"y": ((3, columns), np.float32)}), memory, machines()[max(machines())])
    tiles = {"tile.d": 32, "tile.d1": 64, "tile.d2": 16, "lanes": ("d", "d1", "d2"), "keep.exp1": True}
    kernel = drawn.kernel(Design.of(tiles))
    (row,) = kernel.binary.workspace
    assert row.per_thread and row.bytes(drawn.sizes) == -(-columns // 64) * 64 * 4
    drawn.check(kernel)


def test_a_broadcast_operand_is_read_in_place():
    memory = Guarded(0)
    x, row = memory.normal((9, 33)), memory.normal((1, 33))
    inputs = {"a": x, "b": np.broadcast_to(row, (9, 33))}
    drawn = Run(Case(operators.scale_add, inputs, {"c": ((9, 33), np.float32)}, {"alpha": 2.0}), memory, SSE2)
    drawn.check(drawn.kernel())


def test_only_instructions_of_the_machine_are_used():
    """Kernels for AVX2 have no 512-bit registers and no masks, whatever this processor has."""
    memory = Memory(0)
    inputs = {"x": memory.normal((3, 40)), "weight": memory.normal((40,))}
    for name, absent in (("x86-avx2", ("zmm", "%k1")), ("x86-avx512", ("vcvtneps2bf16",))):
        machine = Machine.named(name)
        guarded = Guarded(0, "rows")
        drawn = Run(Case(operators.rmsnorm, inputs, {"y": ((3, 40), FLOATS[1])}, {"eps": 1e-5}), guarded, machine)
        text = assembly(drawn.program, default_design(drawn.program, drawn.facts()), dict(drawn.layouts), machine)
        assert "vfmadd" in text
        assert not any(word in text for word in absent)


def assembly(program, design, layouts, machine):
    unit = VectorUnit(machine.vector_bits // 8, target_of(machine).enabled)
    return assemble(emit(lower(program, design), layouts, {}, unit).text, target_of(machine))


@pytest.mark.parametrize("element", ["bf16", "i8"])
@pytest.mark.parametrize("name", ["matmul", "gate_up", "batched_matmul"])
def test_amx_text_is_valid(name, element):
    """Kernels on tile registers compile on any machine (they run where the processor has them)."""
    machine = Machine.named("sapphire-rapids")
    memory = Guarded(0, "rows")
    operator = operators.OPERATORS[name]
    names = [p.name for p in operator.kernel.signature.params if not p.optional]
    options = {"activation": None} if name == "matmul" else {}
    if element == "i8" and name == "gate_up":
        return  # its activation takes floats
    result = "i32" if element == "i8" else element
    program = operator.kernel.trace({n: result if n == "c" else element for n in names}, options=options)
    layouts = {p.name: memory.facts(len(p.dims)) for p in program.params}
    unit = {n: (len(x.strides) - 1,) for n, x in layouts.items()}
    facts = Facts({"B": 2, "M": 100, "N": 200, "K": 3000}, unit, machine)
    design = default_design(program, facts)
    atom, instruction = ("amx_int8", "tdpbssd") if element == "i8" else ("amx_bf16", "tdpbf16ps")
    assert atom in dict(design.decisions).values()
    text = emit(lower(program, design), layouts, {}, VectorUnit(64, target_of(machine).enabled)).text
    assert text.count(instruction) > 2
    assert instruction in assemble(text, target_of(machine))


def test_a_stream_is_fetched_ahead_into_the_second_cache():
    program = operators.matmul.kernel.trace("bf16", options={"activation": None})
    layouts = {p.name: TensorLayout((None,) * (len(p.dims) - 1) + (1,)) for p in program.params}
    tiles = {"tile.n": 1, "tile.k": 64, "lanes": ("k",), "atom.dot0": "bf16x2", "ahead.b0": 16}
    text = assembly(program, Design.of(tiles), layouts, Machine.named("sapphire-rapids"))
    assert "prefetcht1\t2048(" in text and "prefetcht1\t2112(" in text  # 16 tiles of 128 bytes, line by line


def test_a_design_without_decisions_is_a_scalar_kernel():
    """The plainest design: one point at a time, in the order in which the program is written."""
    memory = Guarded(0)
    inputs = {"a": memory.normal((5, 7)), "b": memory.normal((3, 7))}
    drawn = Run(Case(operators.matmul, inputs, {"c": ((5, 3), np.float32)}, options={"activation": None}), memory, SSE2)
    drawn.check(drawn.kernel(Design.of({})))


def test_nothing_outside_the_operands_is_touched():
    """Operands that end, or begin, at a page nobody may touch: a stray access would end the process."""
    script = Path(__file__).with_name("at_the_edge.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, f"{done.stdout[-500:]}\n{done.stderr[-2000:]}"
    assert done.stdout.splitlines()[-1] == "all inside"
