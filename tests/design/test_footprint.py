"""Estimates of registers, scratch and code, against what is known of the emitted kernels."""

from __future__ import annotations

import re

import pytest
from programs import facts, traced

from tilewright.build.kernel_cache import target_of
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.footprint import Footprint
from tilewright.emit.abi import TensorLayout
from tilewright.emit.llvm import VectorUnit, emit
from tilewright.lower.stages import lower

MATMUL = traced("matmul", activation=None)


def footprint(program=MATMUL, machine="zen5", **decisions):
    design = Design.of({name.replace("__", "."): choice for name, choice in decisions.items()})
    return Footprint(program, design, facts(program, machine))


def test_width_of_vectors():
    tiles = footprint(tile__m=3, tile__n=48, lanes=("n", "m"))
    assert (tiles.width("n"), tiles.width("m"), tiles.width("k")) == (16, 4, 1)
    assert tiles.parts(("m", "n"), "n") == 3 * 3
    assert tiles.lane_of(("m", "k")) == "m"


@pytest.mark.parametrize(
    "decisions, registers",
    [
        ({}, 1),
        ({"tile__m": 8, "tile__n": 32, "lanes": ("n",)}, 16),  # accumulators; operands stream from memory
        ({"tile__m": 4, "tile__n": 4, "tile__k": 32, "lanes": ("k",)}, 16),  # a vector of partial sums for each element
    ],
)
def test_registers_of_a_product(decisions, registers):
    assert footprint(**decisions).registers == registers


def test_accumulators_in_tile_registers_take_no_vectors():
    program = traced("matmul", "bf16", activation=None)
    tiles = {"tile__m": 32, "tile__n": 32, "tile__k": 32, "lanes": ("n",)}
    assert footprint(program, "sapphire-rapids", **tiles, atom__dot0="amx_bf16").registers <= 1
    assert footprint(program, "sapphire-rapids", **tiles).registers == 64


def test_scratch_of_blocks_of_the_sum():
    assert footprint(block__m=64, block__n=128, block__k=256).scratch_bytes == 64 * 128 * 4
    assert footprint(traced("gate_up"), block__m=64, block__n=128, block__k=256).scratch_bytes == 2 * 64 * 128 * 4
    assert footprint(block__m=64, block__n=128).scratch_bytes == 0


def test_scratch_of_a_kept_row():
    kept = footprint(traced("softmax"), tile__m=2, keep__exp1=True, tile__d1=8, tile__d2=8)
    assert kept.scratch_bytes == 2 * kept.facts.sizes["D"] * 4


def estimated_and_written(name, machine, **decisions):
    """Instructions of the default design with `decisions`: as estimated, and as they stand in the emitted text."""
    options = {"matmul": {"activation": None}, "attention": {"causal": True, "window": None}}.get(name, {})
    program = traced(name, **options)
    known = facts(program, machine)
    design = default_design(program, known).with_(**decisions)
    layouts = {p.name: TensorLayout((None,) * (len(p.dims) - 1) + (1,)) for p in program.params if p.dims is not None}
    unit = VectorUnit(known.machine.vector_bits // 8, target_of(known.machine).enabled)
    text = emit(lower(program, design), layouts, {d: known.sizes[d] for d in known.fixed}, unit).text
    written = len(re.findall(r"^  (%|call|store|br)", text, re.MULTILINE))
    return Footprint(program, design, known).instructions, written


PRODUCTS = ("matmul", "gate_up")


@pytest.mark.parametrize("name", [*PRODUCTS, "rmsnorm", "softmax", "swiglu", "scale_add", "rope_cache", "attention"])
@pytest.mark.parametrize("machine", ["x86-avx2", "zen5"])
def test_instructions_are_estimated_within_a_factor_of_five(name, machine):
    """Address arithmetic and masks are not counted; it is the order of magnitude that decides.

    Products have their sum unrolled: of one short step the packing and the edges of tiles would be most of the text.
    """
    estimate, written = estimated_and_written(name, machine, **({"unroll.k": 4} if name in PRODUCTS else {}))
    assert estimate / 2 < written < 5 * estimate + 200, (estimate, written)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("machine", ["x86-avx2", "zen5"])
def test_what_unrolling_adds_is_estimated_closely(name, machine):
    once, four = (estimated_and_written(name, machine, **{"unroll.k": n}) for n in (1, 4))
    estimate, written = (b - a for a, b in zip(once, four, strict=True))
    assert estimate / 1.5 < written < 1.5 * estimate, (estimate, written)
