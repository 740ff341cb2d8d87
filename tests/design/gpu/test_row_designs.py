"""Designs of rows on a GPU: a row is read once, what may be shared is shared, and no draw or change alters a result."""

import random
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "gpu"))

from operator_cases import draw

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.early import early_loads
from tilewright.design.gpu import row_mutations
from tilewright.design.gpu.rows import fixed_dims
from tilewright.design.gpu.simt import default_simt, draw_simt, legal_simt
from tilewright.design.legality import legal
from tilewright.design.mutations import neighbours
from tilewright.design.space import random_design
from tilewright.language import ir, structure
from tilewright.language.dtypes import dtype
from tilewright.language.interpreter import bind_sizes, run
from tilewright.language.parser import parse
from tilewright.language.printer import show
from tilewright.language.verifier import verify
from tilewright.lower.gpu.simt import lower_simt
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS
from tilewright.runtime import tolerance
from tilewright.runtime.compiled import dtypes_of

ROWS = ["rmsnorm", "add_rmsnorm", "layernorm", "softmax", "argmax", "topk", "rmsnorm_backward", "softmax_backward"]
FLAT = ["silu", "gelu", "swiglu", "scale_add", "swiglu_backward", "geglu_backward", "embedding", "rope", "rope_cache"]
COLUMNS = ["rmsnorm_weight_backward"]


def of_sizes(name, machine="h200", element="bf16", present=(), options=None, fixed=None, **sizes):
    """(program, facts) of an operator at sizes."""
    operator = OPERATORS[name]
    kernel = operator.kernel.trace(dtypes_of(operator.kernel, element, present), options=options)
    unit = {p.name: (len(p.dims) - 1,) for p in kernel.params if p.dims}
    fixed = frozenset(fixed_dims(kernel) if fixed is None else fixed)
    return kernel, Facts(sizes, unit, Machine.named(machine), frozenset(unit), fixed)


def met(call):
    """(program, facts, fresh operands) of a call."""
    tensors = dict(call.inputs)
    for name, (shape, kind) in call.outputs.items():
        poison = np.full(shape, -1 if np.dtype(kind).kind == "i" else np.nan, kind)
        tensors[name] = np.array(call.inputs[name]) if name in call.operator.updates else poison
    kernel = call.operator.kernel.trace({n: dtype(x.dtype) for n, x in tensors.items()}, options=call.options)
    unit = {p.name: (len(p.dims) - 1,) for p in kernel.params if p.dims}
    whole = {a for let in structure.lets(kernel).values() for a in let.type.axes if a in kernel.dims}
    fixed = frozenset((*fixed_dims(kernel), *whole))
    return kernel, Facts(bind_sizes(kernel, tensors), unit, Machine.named("h200"), frozenset(unit), fixed), tensors


def reads(program, tensor):
    """Loads of a tensor in a scheduled program."""
    return [let for let, ref in structure.loads(program) if ref.buffer == tensor]


# ------------------------------------------------------------------------------------------------ defaults
@pytest.mark.parametrize("rows", [1, 64, 8192])
@pytest.mark.parametrize(
    "name", ["rmsnorm", "add_rmsnorm", "layernorm", "softmax", "softmax_backward", "argmax", "topk"]
)
def test_a_row_is_read_once_however_many_passes_it_takes(name, rows):
    kernel, facts = of_sizes(name, M=rows, D=4096, K=8)
    program = lower_simt(kernel, default_simt(kernel, facts), facts)
    inputs = [p.name for p in kernel.params if p.dims == ("M", "D") and p.name not in OPERATORS[name].outputs]
    assert inputs
    assert {t: len(reads(program, t)) for t in inputs} == dict.fromkeys(inputs, 1)
    assert len(reads(kernel, inputs[0])) > 1


def test_rows_whose_length_is_no_part_of_the_kernel_are_read_in_every_pass():
    kernel, facts = of_sizes("softmax", fixed=(), M=64, D=4096)
    program = lower_simt(kernel, default_simt(kernel, facts), facts)
    assert len(reads(program, "x")) == 3


def test_long_rows_that_are_few_are_shared_by_a_cluster():
    kernel, facts = of_sizes("softmax", M=1, D=128256)
    design = default_simt(kernel, facts)
    assert {design.number(f"split.{a}") for a in ("d", "d1", "d2")} == {8}
    kernel, facts = of_sizes("softmax", machine="a100", M=1, D=128256)
    assert not dict(default_simt(kernel, facts).prefixed("split"))  # it has no clusters


LAST = dict.fromkeys


@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [
        ("rmsnorm", 16384, LAST("xy", "evict_last")),  # the weight, which all rows read, has none
        ("rmsnorm", 8192, {"x": "cg", "y": "evict_last"}),
        ("rmsnorm", 4096, {}),
        ("swiglu", 16384, LAST(("gate", "up", "y"), "evict_last")),
        ("softmax_backward", 16384, LAST(("y", "dy", "dx"), "evict_last")),
        ("rmsnorm_weight_backward", 16384, LAST(("x", "dy"), "evict_last")),
    ],
)
def test_rows_that_are_far_more_than_l2_holds_leave_it_last(name, rows, words):
    kernel, facts = of_sizes(name, M=rows, D=8192)
    assert dict(default_simt(kernel, facts).prefixed("cache")) == words


def test_rows_of_odd_length_have_no_words():
    kernel, facts = of_sizes("rmsnorm", M=16384, D=8191)
    assert not dict(default_simt(kernel, replace(facts, aligned=frozenset())).prefixed("cache"))


def test_rows_that_are_read_again_have_no_words():
    kernel, facts = of_sizes("softmax", fixed=(), M=16384, D=8192)  # in every pass
    assert "cache.x" not in dict(default_simt(kernel, facts).decisions)
    kernel, facts = of_sizes("embedding", N=16384, V=1000, D=8192)  # by two tokens
    assert "cache.table" not in dict(default_simt(kernel, facts).decisions)
    kernel, facts = of_sizes("topk", M=16384, D=8192, K=8)
    assert not dict(default_simt(kernel, facts).prefixed("cache"))


@pytest.mark.parametrize(("columns", "width"), [(2048, 64), (4096, 64), (8192, 128), (65536, 256)])
def test_blocks_that_share_sums_over_rows_are_all_at_work_at_once(columns, width):
    kernel, facts = of_sizes("rmsnorm_weight_backward", M=8192, D=columns)
    assert default_simt(kernel, facts).number("tile.d") == width


def test_sums_over_rows_are_shared_by_a_cluster():
    kernel, facts = of_sizes("rmsnorm_weight_backward", M=8192, D=4096)
    assert default_simt(kernel, facts).number("split.m") == 8


def test_few_rows_take_many_threads_and_load_what_they_need_later_at_once():
    kernel, facts = of_sizes("rmsnorm", M=1, D=4096)
    few = default_simt(kernel, facts)
    kernel, facts = of_sizes("rmsnorm", M=8192, D=4096)
    many = default_simt(kernel, facts)
    assert few.number("warps") * few.number("split.d") > many.number("warps")
    assert few.get("early.weight0") and not many.get("early.weight0")


@pytest.mark.parametrize(("rows", "length", "blocks"), [(1, 8192, 8), (16, 4096, 4), (1, 1024, 1), (132, 4096, 1)])
def test_small_blocks_share_a_row_where_all_of_them_find_room_at_once(rows, length, blocks):
    kernel, facts = of_sizes("softmax", M=rows, D=length)
    design = default_simt(kernel, facts)
    assert design.number("split.d") == (blocks if blocks > 1 else 0)
    assert blocks == 1 or design.number("warps") == 4


def test_lengths_of_rows_are_a_part_of_kernels_and_their_number_is_not():
    wanted = {"rmsnorm": ("D",), "softmax": ("D",), "swiglu": ("D",), "rope": ("H",), "embedding": ("D",), "matmul": ()}
    for name, dims in wanted.items():
        operator = OPERATORS[name]
        assert fixed_dims(operator.kernel.trace(dtypes_of(operator.kernel, "bf16"))) == dims


# -------------------------------------------------------------------------------------- what keeps the meaning
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [*ROWS, *FLAT, *COLUMNS])
def test_drawn_designs_and_chains_of_changes_mean_what_was_written(name, seed):
    call = draw(name, seed, ("f32", "bf16")[seed % 2])
    kernel, facts, tensors = met(call)
    dice = random.Random(f"{name}{seed}")
    design = random_design(kernel, facts, dice)
    for _ in range(3):
        if found := list(neighbours(kernel, design, facts)):
            design = dice.choice(found).apply(design)
    assert legal(kernel, design, facts) == []
    program = lower_simt(kernel, design, facts)
    assert verify(program) == []
    assert parse(show(program)) == program
    run(program, tensors, call.scalars)
    for output, exact in call.expected().items():
        tolerance.check(output, tensors[output], exact)


@pytest.mark.parametrize("name", [*ROWS, *FLAT, *COLUMNS])
def test_the_first_of_every_choice_is_the_default_and_draws_differ(name):
    heads = {"B": 2, "S": 50, "H": 8, "Q": 8, "P": 60, "T": 60, "R": 32}
    sizes = {"M": 300, "D": 4096, "K": 4, "N": 300, "V": 500, **heads}
    if name == "rope_cache":
        sizes["D"] = 64
    kernel, facts = of_sizes(name, **sizes)
    assert draw_simt(kernel, facts, lambda what, options: options[0]) == default_simt(kernel, facts)
    dice = random.Random(0)
    drawn = {draw_simt(kernel, facts, lambda what, options: dice.choice(options)) for _ in range(40)}
    assert len({d for d in drawn if not legal_simt(kernel, d, facts)}) >= 4


def test_what_is_loaded_early_is_known_early():
    kernel, _ = of_sizes("layernorm", present=("bias",), M=4, D=64)
    assert set(early_loads(kernel)) == {"weight0", "bias0"}
    assert early_loads(of_sizes("swiglu", M=4, D=64)[0]) == {}


@pytest.mark.parametrize("name", row_mutations.__all__[:-1])
def test_a_mutation_shows_what_it_changes(name):
    assert "before:" in getattr(row_mutations, name).__doc__
    assert "after:" in getattr(row_mutations, name).__doc__


# ------------------------------------------------------------------------------------------------- legality
BASE = {"tile.m": 1, "tile.d": 1024, "tile.d1": 1024, "warps": 4, "lanes": ("d", "d1", "m")}
BROKEN = [
    ({"keep.y": True}, "keep.y=True: rmsnorm has no such keep; it has x1, x_1"),
    ({"early.x0": True}, "early.x0=True: rmsnorm has no such early; it has weight0"),
    ({"keep.x1": True, "tile.d": 512}, "keep.x1: tile.d and tile.d1 differ; make them equal"),
    ({"early.weight0": True, "split.d": 2}, "early.weight0: split.d and split.d1 differ; make them equal"),
    ({"split.d": 2, "split.d1": 4}, "split: clusters of 2, 4 blocks in one kernel; make them equal"),
    ({"split.d": 16, "split.d1": 16}, "split.d=16: a cluster of h200 has at most 8 blocks; take fewer"),
    ({"split.m": 2}, "split.m=2: only a serial loop over a whole dimension is shared; drop it"),
    (
        {"keep.x1": True, "warps": 1, "tile.d": 256, "tile.d1": 256},
        r"keep: 256 registers a thread, and 128 is the most",
    ),
    ({"cache.x": "always"}, "cache.x=always: takes one of ca, cg, cs"),
]


@pytest.mark.parametrize(("decisions", "message"), BROKEN)
def test_an_illegal_design_is_told_why(decisions, message):
    kernel, facts = of_sizes("rmsnorm", M=64, D=16384)
    assert legal_simt(kernel, Design.of(BASE), facts) == []
    reasons = legal_simt(kernel, Design.of({**BASE, **decisions}), facts)
    assert [r for r in reasons if re.search(message, r.message)], reasons


def test_rows_of_any_length_cannot_stay():
    kernel, facts = of_sizes("rmsnorm", fixed=(), M=64, D=4096)
    (reason,) = legal_simt(kernel, Design.of({**BASE, "keep.x1": True}), facts)
    assert "keep.x1: the size of D is no part of the kernel, or 0; fix it, or drop the decision" in str(reason)


def test_only_sums_maxima_and_minima_are_joined():
    """What is carried in another way, as a running pair of value and place, has no parts."""
    text = """kernel k(x: f32[M, D], y: f32[M]) {
      for m in M parallel {
        a = full 0.0 : f32[m]
        for d in D {
          v = load x[m, d] : f32[m, d]
          s = reduce sum v over d : f32[m]
          h = mul a s : f32[m]
          a := h
        }
        store y[m] = a
      } }"""
    kernel = parse(text)
    facts = Facts({"M": 4, "D": 64}, {"x": (1,), "y": (0,)}, Machine.named("h200"), fixed=frozenset("D"))
    found = legal_simt(kernel, Design.of({"tile.d": 8, "split.d": 2, "lanes": ("d",)}), facts)
    assert ["a is carried, and is no sum, maximum or minimum" in r.message for r in found] == [True]


def test_shared_loops_and_early_loads_stand_in_the_scheduled_program():
    kernel, facts = of_sizes("rmsnorm", M=4, D=65536)
    design = Design.of({**BASE, "keep.x1": True, "early.weight0": True, "split.d": 4, "split.d1": 4, "warps": 16})
    text = show(lower_simt(kernel, design, facts))
    assert len(re.findall(r"for d1? in D step 1024 @bind=cluster @how=cluster @split=4", text)) == 2
    assert len(re.findall(r"alloc \w+: bf16\[(m, )?D\] @place=register", text)) == 2
    assert not any(isinstance(s, ir.Sync) for s in ir.walk(parse(text).body))


# ------------------------------------------------------------------------------------- operands that lie oddly
TURNED = [*ROWS, *COLUMNS, "silu", "swiglu", "scale_add", "swiglu_backward"]


def lying(kernel, facts, turned):
    """Facts where tensors of rows lie along their rows, along their columns, or along neither, drawn by tensor."""
    dice = random.Random(turned)
    tensors = [p.name for p in kernel.params if p.dims is not None and len(p.dims) == 2]
    return replace(facts, unit={**facts.unit, **{t: dice.choice(((1,), (0,), ())) for t in tensors}})


@pytest.mark.parametrize("turned", range(6))
@pytest.mark.parametrize("name", TURNED)
def test_a_default_is_legal_and_right_however_operands_lie(name, turned):
    call = draw(name, turned, "f32")
    kernel, facts, tensors = met(call)
    facts = lying(kernel, facts, turned)
    design = default_simt(kernel, facts)
    assert legal(kernel, design, facts) == []
    run(lower_simt(kernel, design, facts), tensors, call.scalars)
    for output, exact in call.expected().items():
        tolerance.check(output, tensors[output], exact)


@pytest.mark.parametrize(("rows", "length"), [(20, 96), (65536, 128), (4096, 4096), (3, 40000)])
@pytest.mark.parametrize("name", TURNED)
def test_defaults_are_legal_at_sizes_of_models_however_operands_lie(name, rows, length):
    kernel, facts = of_sizes(name, M=rows, D=length, options={"k": 5} if name == "topk" else None)
    for turned in range(8):
        there = lying(kernel, facts, turned)
        assert legal(kernel, default_simt(kernel, there), there) == []
