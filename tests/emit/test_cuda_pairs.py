"""Neighbours that a program names one by one: which of them are moved together, and by how wide an access."""

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from test_cuda_simt import sass

from tilewright.build.nvrtc import compile_cuda, missing
from tilewright.design.default import Facts
from tilewright.design.gpu.rows import fixed_dims
from tilewright.design.gpu.simt import default_simt
from tilewright.emit.abi import TensorLayout
from tilewright.emit.cuda_pairs import find_pairs
from tilewright.emit.cuda_places import Place
from tilewright.emit.cuda_simt import emit_simt
from tilewright.language import dtype, ir
from tilewright.lower.gpu.simt import lower_simt
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS
from tilewright.runtime.compiled import dtypes_of

BF16, F32 = dtype("bf16"), dtype("f32")


def place(name, align=16, readonly=False, kind=BF16):
    return Place(name, kind, ("s0", "1", "s2"), align, readonly)


def load(name, at, tensor="x"):
    return ir.Let(name, ir.TileType(BF16, ("r",)), ir.Load(ir.Ref(tensor, ("m", at, "r"))))


def store(value, at):
    return ir.Store(ir.Ref("y", ("m", at, "r")), value)


def pairs(*body, align=16, readonly=True):
    places = {"x": place("x", align, readonly), "y": place("y", align)}
    types = {s.name: s.type for s in body if isinstance(s, ir.Let)}
    return find_pairs(body, places, types)


def test_two_neighbours_are_one_load_and_one_store():
    a, b = load("a", 0), load("b", 1)
    found = pairs(a, b, store("b", 0), store("a", 1))
    assert found.loads == {"a": "a", "b": "a"}
    assert found.stores == {store("a", 1): store("b", 0)}
    assert found.delayed(store("b", 0)) and not found.delayed(store("a", 1))


def test_what_lies_in_two_pairs_is_none():
    a, b = load("a", 1), load("b", 2)
    assert not pairs(a, b, store("a", 1), store("b", 2)).loads
    assert not pairs(a, b, store("a", 1), store("b", 2)).stores


def test_what_is_written_or_not_aligned_to_both_is_moved_one_by_one():
    a, b = load("a", 0), load("b", 1)
    assert not pairs(a, b, readonly=False).loads
    assert not pairs(a, b, align=2).loads
    assert pairs(a, b, align=4).loads


@pytest.mark.parametrize("between", [load("c", 4), store("a", 4)])
def test_a_store_waits_for_no_load_and_no_other_store(between):
    a, b = load("a", 0), load("b", 1)
    found = pairs(a, b, store("a", 0), between, store("b", 1))
    assert found.loads
    assert not found.stores


def interleaved(element="bf16", align=16, **sizes):
    """(C++, module) of rope on heads whose neighbours turn: stride 1 between the halves of the program."""
    kernel = OPERATORS["rope"].kernel.trace(dtypes_of(OPERATORS["rope"].kernel, element, ()))
    sizes = {"B": 2, "S": 16, "H": 8, "P": 16, "R": 64, **sizes}
    unit = {"x": (3,), "y": (3,), "cos": (2,), "sin": (2,)}
    ranks = {p.name: len(p.dims) for p in kernel.params if p.dims}
    layouts = {t: TensorLayout(tuple(1 if d in unit[t] else None for d in range(n)), align) for t, n in ranks.items()}
    fixed = {d: sizes[d] for d in (*fixed_dims(kernel), "R")}
    facts = Facts(sizes, unit, Machine.named("h200"), frozenset(unit), frozenset(fixed))
    return emit_simt(lower_simt(kernel, default_simt(kernel, facts), facts), layouts, fixed, facts.machine)


@pytest.mark.skipif(missing() is not None, reason="NVRTC is not installed")
@pytest.mark.parametrize(("element", "wide"), [("bf16", r"(?!\.)"), ("f16", r"(?!\.)"), ("f32", r"\.64")])
def test_a_warp_moves_neighbouring_pairs(element, wide):
    module = interleaved(element)
    assert module.source.count("tw::load_pair<") == module.source.count("tw::store_pair<") == 1
    compiled = compile_cuda(module.source, module.entry, "sm_90a")
    assert (compiled.report.spill_stores, compiled.report.stack) == (0, 0)
    text = sass(compiled.cubin)
    stores = re.findall(r"STG\.E[.\w]*", text)
    assert stores and all(re.fullmatch(rf"STG\.E{wide}", s) for s in stores), stores
    assert "struct R : tw::Spread<1, 1, 0, 6>" in module.source  # lanes side by side hold pairs side by side


def test_pairs_whose_places_are_not_aligned_are_moved_one_by_one():
    assert "_pair" not in interleaved(align=2).source
