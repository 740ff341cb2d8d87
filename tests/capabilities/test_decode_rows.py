"""Rows A14 and A15 of the list of capabilities on GPUs: ragged batches by lane-level primitives, no work on padding."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
from counted import Counted

from tilewright import operators
from tilewright.build.cuda_kernel import CudaStages
from tilewright.build.kernel_cache import Request
from tilewright.build.nvrtc import missing
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.emit.abi import TensorLayout
from tilewright.language.dtypes import dtype
from tilewright.language.interpreter import run
from tilewright.lower.gpu.simt import lower_simt
from tilewright.machines.machine import Machine
from tilewright.runtime import tolerance

H200 = Machine.named("h200")
LENGTHS, ROOM, HEADS, HEAD = (70, 0, 256, 17, 64), 256, 2, 16
SIZES = {"B": len(LENGTHS), "H": HEADS, "G": 4, "S": 1, "T": ROOM, "D": HEAD, "E": HEAD, "P": 16, "L": ROOM // 16}


def operands(name):
    """Inputs of a ragged batch of decoding requests; what lies behind a sequence is NaN, its pages are no pages."""
    random = np.random.default_rng(2)
    tensors = {"q": random.standard_normal((len(LENGTHS), HEADS, 4, 1, HEAD), np.float32)}
    k, v = random.standard_normal((2, len(LENGTHS), HEADS, ROOM, HEAD), np.float32)
    for b, length in enumerate(LENGTHS):
        k[b, :, length:], v[b, :, length:] = np.nan, np.nan
    if name == "attention":
        tensors |= {"k": k, "v": v}
    else:
        pages = [
            x.reshape(len(LENGTHS), HEADS, -1, 16, HEAD).transpose(0, 2, 1, 3, 4).reshape(-1, HEADS, 16, HEAD)
            for x in (k, v)
        ]
        table = np.arange(pages[0].shape[0], dtype=np.int32).reshape(len(LENGTHS), -1)
        for b, length in enumerate(LENGTHS):
            table[b, -(-length // 16) :] = -1
        tensors |= {"k_pages": pages[0].copy(), "v_pages": pages[1].copy(), "page_table": table}
    return {**tensors, "lengths": np.array(LENGTHS, np.int32)}


def traced(name, element="f32"):
    found = getattr(operators, name)
    names = [p.name for p in found.kernel.signature.params if p.name not in ("scale", "lse", "k_scale", "v_scale")]
    types = {n: "i32" if n in ("lengths", "page_table") else element for n in names}
    return found.kernel.trace(types, options={"causal": True, "window": None})


@cache
def decoded(name):
    """All stages of decoding 64 requests of up to 4096 keys, by the default design, for an H200."""
    kernel = traced(name, "bf16")
    layouts = tuple((p.name, TensorLayout((*[None] * (len(p.dims) - 1), 1), 128)) for p in kernel.params if p.dims)
    unit = {n: (len(x.strides) - 1,) for n, x in layouts}
    known = {"B": 64, "H": 8, "G": 4, "S": 1, "T": 4096, "D": 128, "E": 128, "N": 16384, "P": 16, "L": 256}
    sizes = {d: known[d] for d in kernel.dims}
    design = default_design(kernel, Facts(sizes, unit, H200, frozenset(unit), frozenset("DE")))
    return CudaStages(Request(kernel, design, layouts, (("D", 128), ("E", 128))), H200)


@cache
def instructions(name):
    code = decoded(name).text("sass")
    return re.findall(r"^\s+/\*[0-9a-f]{4}\*/\s+(?:@!?U?P\w+ +)?([A-Z][A-Z0-9.]*)", code, re.MULTILINE)


# ------------------------------------------------------------------------------------------------- A14
@pytest.mark.skipif(missing() is not None, reason="NVRTC is not installed")
@pytest.mark.parametrize("name", ["attention", "paged_attention"])
def test_A14_warps_of_one_block_have_lengths_of_their_own(name):
    """A warp begins and ends its range without the others: within it lanes reduce by shuffles and mma, and no barrier
    of the block stands before its last product."""
    code = instructions(name)
    products = [n for n, i in enumerate(code) if i.startswith("HMMA")]
    shuffles = [n for n, i in enumerate(code) if i.startswith("SHFL.BFLY")]
    assert products and shuffles
    first, last = min(products), max(products)
    assert any(first < n < last for n in shuffles)
    reads = next(n for n, i in enumerate(code) if i.startswith(("LDGSTS", "LDG.E.128")))
    assert not any(i.startswith("BAR") for i in code[reads:last])
    assert re.search(r"for \w+w in \w+s step \d+ @bind=warp @how=two_pass", decoded(name).text("sched"))


@pytest.mark.parametrize("name", ["attention", "paged_attention"])
def test_A14_lanes_past_the_end_count_for_nothing(name):
    """Rows, keys and columns that a tile does not have are masked lane by lane: each operand names its edge."""
    source = decoded(name).module.source
    keys = "t" if name == "attention" else "p"
    assert re.search(rf"const tw::Part<own::{keys}, 1> {keys}\(\w+, .*, lone\);", source)
    assert re.search(rf"tw::reduce<.*>\(tw::Max{{}}, \w+, {keys}, lone\)", source)
    assert re.search(rf"tw::multiply\w*<.*>\(\w+, \w+, \w+, {keys}\);", source)  # the sum over keys ends at the edge
    assert "tw::held(" in source


# ------------------------------------------------------------------------------------------------- A15
@pytest.mark.parametrize(("name", "axis", "keys"), [("attention", "t", "k"), ("paged_attention", "l", "k_pages")])
def test_A15_keys_are_read_as_often_as_there_are_true_positions(name, axis, keys):
    """In the program as written, and dealt to blocks and warps in parts that do not divide any length."""
    program = traced(name)
    design = {
        "tile.g": 4,
        "tile.t" if axis == "t" else "tile.p": 8,
        "warps": 4,
        f"part.{axis}": 96 if axis == "t" else 4,
    }
    unit = {p.name: (len(p.dims) - 1,) for p in program.params if p.dims}
    scheduled = lower_simt(program, Design.of(design), Facts(SIZES, unit, H200))
    expected = getattr(operators, name).reference(**operands(name), scale=0.25, causal=True)["o"]
    for each in (program, scheduled):
        tensors = operands(name)
        Counted.read = 0
        tensors[keys] = tensors[keys].view(Counted)
        tensors["o"] = np.full(tensors["q"].shape, np.nan, np.float32)
        assert dtype(tensors["o"].dtype).name == "f32"
        run(each, tensors, {"scale": 0.25})
        assert Counted.read == sum(LENGTHS) * HEADS * HEAD  # not len(LENGTHS) * ROOM
        tolerance.check("o", tensors["o"], expected)


@pytest.mark.skipif(missing() is not None, reason="NVRTC is not installed")
@pytest.mark.parametrize("name", ["attention", "paged_attention"])
def test_A15_blocks_whose_part_lies_past_the_end_leave_at_once(name):
    code = instructions(name)
    first = next(n for n, i in enumerate(code) if i.startswith(("LDGSTS", "LDG.E.128")))
    assert "EXIT" in code[:first]
    assert sum(i.startswith("LDG.E") for i in code[:first]) == 1  # the length


@pytest.mark.parametrize("name", ["attention", "paged_attention"])
def test_A15_one_launch_serves_a_batch_of_any_lengths(name):
    """The launch depends on the room alone; the parts of a request, and who joins them, on its length."""
    module = decoded(name).module
    room, points = module.grid.parts
    assert room == ("T" if name == "attention" else "L") and points > 0
    assert re.search(r"const int \ws_count = max\(1, \(\ws_high - \ws_low \+ \d+\) / \d+\);", module.source)
    assert "if (part >= " in module.source
    assert re.search(r"last_to_come\(tickets \+ tile, \ws_count,", module.source)
