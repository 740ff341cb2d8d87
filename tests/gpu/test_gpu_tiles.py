"""Primitives of the tile library on the GPU: every layout loads, stores, reduces and multiplies what it should."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
sys.path.append(str(Path(__file__).parent))

from gpu_programs import run_operator, run_text

from tilewright.design.design import Design
from tilewright.operators import OPERATORS

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "i32": torch.int32, "i64": torch.int64}
# (threads, lanes, rows, columns of a tile, elements an access moves)
LAYOUTS = [
    (32, ("n",), 1, 32, 1),
    (32, ("n",), 4, 256, 8),
    (128, ("n", "m"), 8, 64, 4),
    (128, ("m", "n"), 64, 16, 2),
    (256, ("n",), 2, 2048, 8),
    (256, ("m",), 256, 4, 4),
]


def numbers(kind, *shape, seed=0):
    torch.manual_seed(seed)
    if kind in ("i32", "i64"):
        return torch.randint(-1000, 1000, shape, device="cuda", dtype=TYPES[kind])
    return torch.randn(*shape, device="cuda").to(TYPES[kind])


def program(body, layout, params):
    threads, lanes, rows, columns, _ = layout
    along = f"({','.join(lanes)})" if len(lanes) > 1 else lanes[0]
    return f"""kernel k({params}) @lanes={along} @threads={threads} {{
      for m in M step {rows}, n in N step {columns} parallel @bind=grid {{ {body} }}
    }}"""


@pytest.mark.parametrize("sizes", [(64, 256), (37, 331), (1, 8), (5, 4096)])
@pytest.mark.parametrize("kind", ["f32", "bf16", "i64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_loaded_is_stored(layout, kind, sizes):
    x = numbers(kind, *sizes)
    y = torch.full_like(x, -7)
    vec = layout[-1]
    body = f"v = load x[m, n] : {kind}[m, n] @vec={vec}  store y[m, n] = v @vec={vec}"
    run_text(program(body, layout, f"x: {kind}[M, N], y: {kind}[M, N]"), {"x": x, "y": y})
    assert torch.equal(x, y)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_of_any_kind_are_honoured_and_nothing_beside_the_tile_is_touched(layout):
    room = torch.full((90, 400), -7.0, device="cuda")
    x, y = numbers("f32", 331, 37).t(), room[3:77:2, 5:336]
    body = f"v = load x[m, n] : f32[m, n] @vec={layout[-1]}  store y[m, n] = v @vec={layout[-1]}"
    run_text(program(body, layout, "x: f32[M, N], y: f32[M, N]"), {"x": x, "y": y})
    assert torch.equal(x, y)
    y.fill_(-7.0)
    assert (room == -7.0).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tile_is_transposed_by_permuting_its_axes(layout):
    x, y = numbers("bf16", 70, 300), torch.zeros(300, 70, device="cuda", dtype=torch.bfloat16)
    body = "v = load x[m, n] : bf16[m, n]  w = permute v : bf16[n, m]  store y[n, m] = w"
    run_text(program(body, layout, "x: bf16[M, N], y: bf16[N, M]"), {"x": x, "y": y})
    assert torch.equal(x.t(), y)


@pytest.mark.parametrize("op", ["sum", "max", "min"])
@pytest.mark.parametrize("size", [64, 50, 2048, 1999])
@pytest.mark.parametrize(("threads", "tile"), [(32, 32), (128, 64), (256, 2048), (64, 8)])
def test_rows_are_reduced_over_lanes_and_warps(op, size, threads, tile):
    x, y = numbers("i32", 19, size), torch.zeros(19, device="cuda", dtype=torch.int32)
    start = {"sum": "0", "max": "-2147483648", "min": "2147483647"}[op]
    join = {"sum": "add"}.get(op, op)
    text = f"""kernel k(x: i32[M, N], y: i32[M]) @lanes=(n,m) @threads={threads} {{
      for m in M step 2 parallel @bind=grid {{
        acc = full {start} : i32[m]
        for n in N step {tile} {{
          v = load x[m, n] : i32[m, n] @vec=4
          r = reduce {op} v over n : i32[m]
          s = {join} acc r : i32[m]
          acc := s
        }}
        store y[m] = acc
      }} }}"""
    run_text(text, {"x": x, "y": y})
    assert torch.equal({"sum": x.sum(1).int(), "max": x.amax(1), "min": x.amin(1)}[op], y)


def test_a_gather_picks_rows_by_their_numbers():
    table, ids = numbers("f32", 100, 60), torch.randint(0, 100, (33,), device="cuda", dtype=torch.int32)
    y = torch.zeros(33, 60, device="cuda")
    text = """kernel k(ids: i32[M], t: f32[V, N], y: f32[M, N]) @lanes=(n,m) @threads=64 {
      for m in M step 4, n in N step 32 parallel @bind=grid {
        i = load ids[m] : i32[m]
        v = load t[i, n] : f32[m, n] @vec=4
        store y[m, n] = v @vec=4
      } }"""
    run_text(text, {"ids": ids, "t": table, "y": y})
    assert torch.equal(table[ids.long()], y)


# --------------------------------------------------------------------------------------------------- products
def product_of(kind, m, n, k, a_columns, b_columns, decisions, seed=0):
    """Small integers: every product and sum is exact, so that a wrong element cannot hide in a bound."""
    torch.manual_seed(seed)

    def operand(rows, columns, by_columns):
        x = torch.randint(-4, 5, (columns, rows) if by_columns else (rows, columns), device="cuda").to(TYPES[kind])
        return x.t() if by_columns else x

    a, b = operand(m, k, a_columns), operand(n, k, b_columns)
    c = torch.full((m, n), float("nan"), device="cuda", dtype=torch.float32).to(TYPES[kind])
    atom = "fma" if kind == "f32" else "mma"
    base = {"atom.dot0": atom, "engine.a": "plain", "engine.b": "plain", "stages": 2}
    run_operator(OPERATORS["matmul"], {"a": a, "b": b, "c": c}, Design.of({**base, **decisions}))
    return c, (a.double() @ b.double().t()).to(TYPES[kind])


GRIDS = [(16, 16, 1), (64, 64, 4), (128, 64, 4), (128, 128, 8), (32, 256, 8)]


@pytest.mark.parametrize("layout", ["NT", "NN", "TN", "TT"])
@pytest.mark.parametrize(("rows", "columns", "warps"), GRIDS)
def test_fragments_of_every_layout_meet_in_mma(layout, rows, columns, warps):
    decisions = {"tile.m": rows, "tile.n": columns, "tile.k": 64, "warps": warps, "stages": 3}
    decisions |= {"engine.a": "cp_async", "engine.b": "cp_async"}
    ours, exact = product_of("bf16", 160, 264, 136, layout[0] == "T", layout[1] == "N", decisions)
    assert torch.equal(ours, exact)


@pytest.mark.parametrize("size", [(129, 131, 77), (1, 1, 1), (17, 300, 65), (64, 64, 64)])
@pytest.mark.parametrize("layout", ["NT", "NN", "TN", "TT"])
@pytest.mark.parametrize("kind", ["bf16", "f16", "f32"])
def test_rows_at_any_address_pass_through_registers(kind, layout, size):
    decisions = {"tile.m": 64, "tile.n": 64, "tile.k": 64 if kind != "f32" else 32, "warps": 4}
    ours, exact = product_of(kind, *size, layout[0] == "T", layout[1] == "N", decisions)
    assert torch.equal(ours, exact)


@pytest.mark.parametrize("stages", [2, 3, 4, 5])
@pytest.mark.parametrize("depth", [16, 32, 64, 128])
def test_rings_of_any_depth_hand_over_every_step(stages, depth):
    decisions = {"tile.m": 64, "tile.n": 32, "tile.k": depth, "warps": 4, "stages": stages}
    decisions |= {"engine.a": "cp_async", "engine.b": "cp_async"}
    for k in (8, 64, 200, 1000):
        ours, exact = product_of("bf16", 70, 40, k, False, False, decisions, seed=k)
        assert torch.equal(ours, exact)


@pytest.mark.parametrize("rows", [1, 9, 16, 31])
def test_operands_change_places(rows):
    decisions = {"tile.m": 32, "tile.n": 64, "tile.k": 64, "warps": 4, "swap": True}
    ours, exact = product_of("bf16", rows, 300, 130, False, False, decisions)
    assert torch.equal(ours, exact)


@pytest.mark.parametrize(("order", "group"), [("row", 1), ("grouped", 1), ("grouped", 3), ("grouped", 8)])
def test_every_tile_is_dealt_once_in_any_order(order, group):
    decisions = {"tile.m": 16, "tile.n": 16, "tile.k": 64, "warps": 1, "grid.order": order, "grid.group": group}
    ours, exact = product_of("bf16", 170, 130, 64, False, False, decisions)
    assert torch.equal(ours, exact)
