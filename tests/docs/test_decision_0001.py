"""Decision 0001: its programs parse, verify and compute what it says, and its numbers follow from their text."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from protocol import Protocol, number, of_kind

from tilewright.language import ir
from tilewright.language.interpreter import run
from tilewright.language.notes import NOTE_KEYS, SYNC_ACTIONS, check_note
from tilewright.language.parser import parse
from tilewright.language.printer import show
from tilewright.language.verifier import verify

Array = npt.NDArray[Any]

TEXT = (Path(__file__).parents[2] / "docs" / "decisions" / "0001-one-program-many-machines.md").read_text("utf-8")
SECTIONS = {m[1]: m[2] for m in re.finditer(r"^## \(([a-g])\)(.*?)(?=^## )", TEXT, re.M | re.S)}
LISTINGS = [
    (f"{letter}{n}", text)
    for letter, section in SECTIONS.items()
    for n, text in enumerate(re.findall(r"^```tile\n(.*?)^```$", section, re.M | re.S))
]
PROGRAMS = {name: parse(text) for name, text in LISTINGS}
SCHEDULED = {name: p for name, p in PROGRAMS.items() if ir.note(p.notes, "machine")}
AUTHORED = {p.name: p for p in PROGRAMS.values() if not ir.note(p.notes, "machine")}

# Small, odd, and ragged against every step divided by 32; with the steps as written they are single short tiles.
SIZES = {
    "matmul": {"M": 13, "N": 11, "K": 35},
    "attention": {"H": 2, "S": 19, "T": 23, "D": 8},
    "rmsnorm": {"M": 5, "D": 1003},
    "softmax": {"M": 53, "N": 33},
    "matmul_i8": {"M": 67, "N": 29, "K": 31},
    "layers": {"B": 3, "D": 37, "F": 41, "L": 3},
}
# Just over one tile of most levels of the steps as written.
WRITTEN = {
    "a1": {"M": 30, "N": 40, "K": 1030},
    "a2": {"M": 300, "N": 290, "K": 1060},
    "b0": {"M": 300, "N": 270, "K": 2120},
    "c1": {"H": 1, "S": 150, "T": 140, "D": 16},
    "d1": {"M": 3, "D": 9000},
    "e1": {"M": 1040, "N": 9},
    "f1": {"M": 2060, "N": 270, "K": 300},
    "g1": {"B": 3, "D": 270, "F": 290, "L": 2},
}
SCALARS = {"eps": 1e-5, "scale": 0.3}
HALF_ULP_BF16, ULP_F32 = 2.0**-8, 2.0**-23

# --------------------------------------------------------------------------------------- references


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def normed(h: Array, g: Array) -> Array:
    return h / np.sqrt((h * h).mean(-1, keepdims=True) + SCALARS["eps"]) * g


def layers(x: Array, g: Array, w1: Array, w3: Array, w2: Array) -> Array:
    for layer in range(len(g)):
        gate, up = (normed(x, g[layer]) @ w[layer].T for w in (w1, w3))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w2[layer].T
    return x


def scores(q: Array, k: Array) -> Array:
    return SCALARS["scale"] * q @ k.swapaxes(1, 2)


REFERENCES: dict[str, Callable[..., Array]] = {
    "matmul": lambda a, b: a @ b.T,
    "attention": lambda q, k, v: softmax(scores(q, k)) @ v,
    "rmsnorm": normed,
    "softmax": softmax,
    "matmul_i8": lambda a, b: a @ b,
    "layers": layers,
}


def layers_bound(x: Array, g: Array, w1: Array, w3: Array, w2: Array) -> Array:
    """What bf16 roundings of one layer may add up to: of the normed operand, of u, and of the result."""
    h, scale = normed(x, g[0]), HALF_ULP_BF16 + 64 * ULP_F32
    gate, up = h @ w1[0].T, h @ w3[0].T
    gate_error, up_error = (scale * np.abs(h) @ np.abs(w[0].T) for w in (w1, w3))
    silu = gate / (1 + np.exp(-gate))
    # silu is 1.1-Lipschitz; the last term is the product of both errors.
    error = 1.1 * gate_error * np.abs(up) + np.abs(silu) * up_error + 1.1 * gate_error * up_error
    error += scale * (np.abs(silu * up) + error)
    return np.asarray(error @ np.abs(w2[0].T) + scale * np.abs(x))


def attention_bound(q: Array, k: Array, v: Array) -> Array:
    """P is rounded to bf16, the scores to f32, which the exponential turns into a relative error."""
    p = softmax(scores(q, k))
    relative = HALF_ULP_BF16 + ULP_F32 * (k.shape[1] + 8 * q.shape[2] * (1 + scores(np.abs(q), np.abs(k)).max()))
    return np.asarray(2 * relative * p @ np.abs(v))


# Rounding of the terms inside, before the rounding of the stored result.
BOUNDS: dict[str, Callable[..., Array]] = {
    "matmul": lambda a, b: ULP_F32 * (a.shape[1] + 1) * (np.abs(a) @ np.abs(b.T)),
    "attention": attention_bound,
    "rmsnorm": lambda x, w: ULP_F32 * (x.shape[1] + 8) * np.abs(normed(x, w)),
    "softmax": lambda x: ULP_F32 * (x.shape[1] + 8 + 2 * np.abs(x).max()) * softmax(x),
    "matmul_i8": lambda a, b: np.zeros((len(a), b.shape[1])),
    "layers": layers_bound,
}

# ------------------------------------------------------------------------------------------ helpers


def operands(kernel: ir.Kernel, sizes: dict[str, int], *, exact: bool) -> dict[str, Array]:
    """Seeded inputs of the kernel's dtypes (float64 where `exact`), and a poisoned output last."""
    random = np.random.default_rng(7)
    tensors: dict[str, Array] = {}
    for p in kernel.params:
        if p.dims is None:
            continue
        shape = [sizes[str(d)] for d in p.dims]
        is_int = p.dtype.kind == "int"
        values = random.integers(-128, 128, shape) if is_int else random.standard_normal(shape)
        tensors[p.name] = values.astype(p.dtype.numpy if is_int or not exact else np.float64)
    output = tensors[kernel.params[-1].name]
    output[...] = np.nan if output.dtype.kind != "i" else -77
    return tensors


def execute(kernel: ir.Kernel, sizes: dict[str, int], *, exact: bool = True) -> tuple[list[Array], Array]:
    """The inputs in float64 and the output, parallel iterations in a shuffled order."""
    tensors = operands(kernel, sizes, exact=exact)
    run(kernel, tensors, SCALARS, steps=7, seed=3, exact=exact)
    *inputs, output = (t.astype(np.float64) for t in tensors.values())
    return inputs, output


def divided(body: tuple[ir.Stmt, ...], by: int) -> tuple[ir.Stmt, ...]:
    """`body` with every step divided, rounded up."""
    return tuple(_divided(s, by) for s in body)


def _divided(stmt: ir.Stmt, by: int) -> ir.Stmt:
    if isinstance(stmt, ir.Loop):
        axes = tuple(replace(a, step=a.step and -(-a.step // by)) for a in stmt.axes)
        return replace(stmt, axes=axes, body=divided(stmt.body, by))
    if isinstance(stmt, (ir.When, ir.Role)):
        return replace(stmt, body=divided(stmt.body, by))
    return stmt


def nodes(kernel: ir.Kernel) -> list[ir.Stmt | ir.Kernel]:
    return [kernel, *ir.walk(kernel.body)]


def notes_of(node: ir.Stmt | ir.Kernel) -> ir.Notes:
    return () if isinstance(node, (ir.Assign, ir.When)) else node.notes


def buffer_bytes(kernel: ir.Kernel, places: str, **sizes: int) -> dict[str, int]:
    """Bytes of each buffer in one of `places`: a tile of its axes (or `sizes`) times its stages."""
    extent = {a.name: a.step or 1 for loop in of_kind(kernel, ir.Loop) for a in loop.axes} | sizes
    return {
        a.name: int(np.prod([d if isinstance(d, int) else extent[d] for d in a.dims]))
        * a.dtype.bytes
        * number(a, "stages")
        for a in of_kind(kernel, ir.Alloc)
        if ir.note(a.notes, "place") in places.split()
    }


def says(letter: str, *numbers: float) -> None:
    """The section's prose gives each of `numbers`, with thousands separated."""
    for n in numbers:
        assert re.search(rf"(?<![\d,.]){re.escape(f'{n:,}')}(?![\d]|,\d|\.\d)", SECTIONS[letter]), (
            f"({letter}) lacks {n:,}"
        )


# --------------------------------------------------------------------------------------------- text


def test_all_seven_programs_are_there() -> None:
    assert sorted({name[0] for name in SCHEDULED}) == list("abcdefg")
    assert len(SCHEDULED) == 8  # (a) has a twin
    assert {p.name for p in SCHEDULED.values()} == set(AUTHORED) == set(SIZES)


@pytest.mark.parametrize(("name", "text"), LISTINGS, ids=[n for n, _ in LISTINGS])
def test_listing_is_what_the_printer_prints(name: str, text: str) -> None:
    assert show(PROGRAMS[name]) == text
    assert parse(show(PROGRAMS[name])) == PROGRAMS[name]


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_verifies(name: str) -> None:
    assert verify(PROGRAMS[name]) == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_notes_are_decisions_of_the_table(name: str) -> None:
    for node in nodes(PROGRAMS[name]):
        assert list(notes_of(node)) == sorted(notes_of(node))
        assert [check_note(node, key, value) for key, value in notes_of(node)] == [None] * len(notes_of(node))
    assert {s.action for s in of_kind(PROGRAMS[name], ir.Sync)} <= set(SYNC_ACTIONS)


def test_no_node_serves_one_program_alone() -> None:
    users = defaultdict(set)
    for name, program in SCHEDULED.items():
        for stmt in ir.walk(program.body):
            users[type(stmt)].add(name[0])
    assert set(users) == set(ir.Stmt.__args__)
    assert all(len(letters) >= 3 for letters in users.values()), users


def test_table_marks_what_the_programs_note() -> None:
    used: dict[str, set[str]] = defaultdict(set)
    for name, program in SCHEDULED.items():
        used[name[0]] |= {key for node in nodes(program) for key, _ in notes_of(node)}
    rows = re.findall(r"^\|[^|]*\| `(\w+)` \|(.*)\|$", TEXT, re.M)
    assert [key for key, _ in rows] == list(dict.fromkeys(key for key, _ in rows))
    assert {key for key, _ in rows} == set(NOTE_KEYS)
    for key, marks in rows:
        marked = {letter for letter, cell in zip("abcdefg", marks.split("|"), strict=True) if cell.strip()}
        assert marked == {letter for letter in used if key in used[letter]}, key


# ------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("by", [1, 32, 64])
@pytest.mark.parametrize("name", SCHEDULED)
def test_scheduled_program_means_the_authored_one(name: str, by: int) -> None:
    program = replace(SCHEDULED[name], body=divided(SCHEDULED[name].body, by))
    sizes = SIZES[program.name]
    inputs, output = execute(program, sizes)
    _, meant = execute(AUTHORED[program.name], sizes)
    reference = REFERENCES[program.name](*inputs)
    # float64 throughout: only the order of sums differs, over a few thousand terms at most.
    close = 1e-12 * max(1.0, float(np.abs(reference).max()))
    np.testing.assert_allclose(meant, reference, rtol=0, atol=close)
    np.testing.assert_allclose(output, reference, rtol=0, atol=close)


@pytest.mark.parametrize("name", SCHEDULED)
def test_scheduled_program_in_its_own_dtypes_is_within_the_bound(name: str) -> None:
    program = replace(SCHEDULED[name], body=divided(SCHEDULED[name].body, 32))
    sizes = SIZES[program.name] | ({"L": 1} if program.name == "layers" else {})
    inputs, output = execute(program, sizes, exact=False)
    reference = REFERENCES[program.name](*inputs)
    inside = BOUNDS[program.name](*inputs)
    stored = HALF_ULP_BF16 if program.params[-1].dtype.bits == 16 else 0.0
    assert np.all(np.abs(output - reference) <= inside + stored * (np.abs(reference) + inside))


@pytest.mark.parametrize("name", WRITTEN)
def test_steps_as_written_over_full_and_ragged_tiles(name: str) -> None:
    inputs, output = execute(SCHEDULED[name], WRITTEN[name])
    reference = REFERENCES[SCHEDULED[name].name](*inputs)
    np.testing.assert_allclose(output, reference, rtol=0, atol=1e-12 * max(1.0, float(np.abs(reference).max())))


# ------------------------------------------------------------------------------------------ numbers

SHARED_MEMORY, REGISTERS, WARPGROUP = 232_448, 65_536, 4


def fits_an_sm(name: str, **sizes: int) -> int:
    """Bytes of shared memory of a block, after checking that it fits."""
    total = sum(buffer_bytes(SCHEDULED[name], "shared", **sizes).values())
    assert total <= SHARED_MEMORY
    return total


def registers_at_run_time(kernel: ir.Kernel) -> int:
    """Registers that the roles hold after setmaxnreg, checked against its rules."""
    roles = {r.name: r for r in of_kind(kernel, ir.Role)}
    for r in roles.values():
        assert number(r, "registers") % 8 == 0
        assert 24 <= number(r, "registers") <= 256
        assert number(r, "warps") % WARPGROUP == 0
    assert sum(32 * number(r, "warps") for r in roles.values()) == ir.note(kernel.notes, "threads")
    return sum(32 * number(r, "warps") * number(r, "registers") for r in roles.values())


def test_a_caches() -> None:
    for name, rows in (("a1", 168), ("a2", 256)):
        loops = {a.name: a.step for loop in of_kind(SCHEDULED[name], ir.Loop) for a in loop.axes}
        assert loops["i0"] == rows
        assert rows % loops["i"] == loops["j0"] % loops["j"] == 0
        item = SCHEDULED[name].params[0].dtype.bytes
        parts = (rows * loops["k0"] * item, loops["j"] * loops["k0"] * item, rows * loops["j0"] * 4)
        says("a", *parts, sum(parts))
    assert 14 * 32 // 16 + 2 <= 32  # zmm registers


def test_b_shared_memory_and_registers() -> None:
    shared = fits_an_sm("b0")
    stage = shared // 4
    workspace = sum(buffer_bytes(SCHEDULED["b0"], "memory").values()) * (1024 // 128) * (1024 // 256)
    says("b", shared, stage, workspace, registers_at_run_time(SCHEDULED["b0"]), SHARED_MEMORY, REGISTERS)
    assert 384 * 168 == registers_at_run_time(SCHEDULED["b0"]) <= REGISTERS
    splits = next(s for s in of_kind(SCHEDULED["b0"], ir.Loop) if s.axes[0].name == "s")
    parts = next(a for a in of_kind(SCHEDULED["b0"], ir.Alloc) if a.name == "parts")
    assert number(parts, "stages") == 8192 // splits.axes[0].step


def test_c_shared_memory_and_registers() -> None:
    says("c", fits_an_sm("c1", D=128), registers_at_run_time(SCHEDULED["c1"]))
    assert registers_at_run_time(SCHEDULED["c1"]) <= REGISTERS


def test_d_shared_memory() -> None:
    says("d", buffer_bytes(SCHEDULED["d1"], "cluster", D=8192)["row"])
    cluster = next(s for s in of_kind(SCHEDULED["d1"], ir.Loop) if ir.note(s.notes, "how") == "cluster")
    assert 65_536 // cluster.axes[0].step == 8


def test_e_depth_of_each_buffer_is_the_stage_distance_plus_one() -> None:
    written: dict[str, int] = {}
    read: dict[str, int] = {}
    for role in of_kind(SCHEDULED["e1"], ir.Role):
        for stmt in role.body:
            if isinstance(stmt, (ir.Copy, ir.Store)):
                written[(stmt.dst if isinstance(stmt, ir.Copy) else stmt.ref).buffer] = number(role, "stage")
            elif isinstance(stmt, ir.Let) and isinstance(stmt.expr, ir.Load):
                read[stmt.expr.ref.buffer] = number(role, "stage")
    depths = {a.name: number(a, "stages") for a in of_kind(SCHEDULED["e1"], ir.Alloc)}
    assert depths == {name: read[name] - written[name] + 1 for name in depths}
    says("e", sum(buffer_bytes(SCHEDULED["e1"], "pmu", N=1024).values()))


def pipelined(times: list[int], tiles: int, depth: int) -> int:
    """Cycles of a metapipeline with `depth` buffers between neighbouring stages, tile by tile."""
    finish = np.zeros((len(times), tiles + depth), int)  # finish[j, i + depth]: stage j, tile i
    starts = finish.copy()
    for i in range(depth, tiles + depth):
        for j, time in enumerate(times):
            free = starts[j + 1, i - depth] + times[j + 1] if j + 1 < len(times) and i - depth >= depth else 0
            starts[j, i] = max(finish[j, i - 1], finish[j - 1, i] if j else 0, free)
            finish[j, i] = starts[j, i] + time
    return int(finish[-1, -1])


def test_e_metapipeline_time() -> None:
    assert [pipelined([3, 5, 2, 4], 10, depth) for depth in (1, 2)] == [86, 59]
    passes = {"fetch": 1, "peak": 1, "exponent": 2, "scale": 1}
    roles = of_kind(SCHEDULED["e1"], ir.Role)
    rows, copies = (s.axes[0].step for s in reversed(of_kind(SCHEDULED["e1"], ir.Loop)))
    one_pass, tiles = rows * 1024 // 32, copies // rows
    slow = [one_pass * passes[r.name] for r in roles]
    even = [one_pass * passes[r.name] // number(r, "units") for r in roles]
    says("e", tiles * sum(slow), pipelined(slow, tiles, 2), pipelined(even, tiles, 2), pipelined(even, tiles, 1))


def test_f_cycles() -> None:
    steps = {a.name: a.step for s in of_kind(SCHEDULED["f1"], ir.Loop) for a in s.axes}
    rows, r, c = steps["i0"], steps["k0"], steps["j0"]
    folds, fetch = (512 // r) * (512 // c), 1349.3
    overlapped = int(r + (folds - 1) * max(rows, r, fetch) + rows + r + c - 2)
    says("f", overlapped, folds * (2 * r + c + rows - 2) - 1, (256 // 32) * (128 // 32) * (2 * 32 + 32 + 256 - 2) - 1)
    assert f"{rows * 512 * 512 / (overlapped * r * c):.2%}" in SECTIONS["f"]
    accumulators = buffer_bytes(SCHEDULED["f1"], "accumulator")["acc"]
    assert accumulators == 4096 * 256 * 4
    says("f", buffer_bytes(SCHEDULED["f1"], "scratch", K=0)["fifo"])


def test_g_shared_memory_and_bytes_of_a_layer() -> None:
    says("g", fits_an_sm("g1"), 3 * 2048 * 8192 * 2)
    assert f"{3 * 2048 * 8192 * 2 / 4.42e12 * 1e6:.1f} us" in SECTIONS["g"]


# ---------------------------------------------------------------------------------------- protocols


def without(body: tuple[ir.Stmt, ...], name: str, action: str) -> tuple[ir.Stmt, ...]:
    """`body` without the syncs `name action`."""
    kept = [s for s in body if not (isinstance(s, ir.Sync) and (s.name, s.action) == (name, action))]
    return tuple(
        replace(s, body=without(s.body, name, action)) if isinstance(s, (ir.Loop, ir.When, ir.Role)) else s
        for s in kept
    )


@pytest.mark.parametrize("trips", [1, 2, 3, 5])
@pytest.mark.parametrize("name", ["b0", "c1", "g1"])
def test_roles_neither_deadlock_nor_overwrite(name: str, trips: int) -> None:
    for seed in range(4):
        assert Protocol(SCHEDULED[name], trips, seed).run() == "done"


@pytest.mark.parametrize(
    ("name", "sync"), [("b0", "empty"), ("c1", "kempty"), ("c1", "turn0"), ("c1", "turn1"), ("g1", "empty2")]
)
def test_a_missing_arrival_is_a_deadlock(name: str, sync: str) -> None:
    broken = replace(SCHEDULED[name], body=without(SCHEDULED[name].body, sync, "arrive"))
    assert Protocol(broken, 5, 0).run().startswith("stuck")


@pytest.mark.parametrize(("name", "sync"), [("b0", "empty"), ("c1", "vempty"), ("g1", "empty")])
def test_a_missing_wait_overwrites_a_slot(name: str, sync: str) -> None:
    broken = replace(SCHEDULED[name], body=without(SCHEDULED[name].body, sync, "wait"))
    with pytest.raises(AssertionError, match="overwritten"):
        for seed in range(20):
            Protocol(broken, 5, seed).run()
