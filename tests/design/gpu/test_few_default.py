"""The default of few rows through shared memory: legal everywhere, even over the SMs, and by what a step holds."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "lower" / "gpu"))
from products import facts, traced

from tilewright.design.gpu.few_default import default_few
from tilewright.design.gpu.product import product
from tilewright.design.legality import legal
from tilewright.emit.abi import TensorLayout
from tilewright.emit.cuda import emit_cuda
from tilewright.lower.gpu.stages import lower_gpu

SIZES = [(3072, 2048), (2048, 8192), (6144, 4096), (28672, 4096), (4096, 14336), (128256, 4096), (200, 333), (64, 64)]


def decided(name, machine="h200", **sizes):
    """(program, design, facts) of a product by this default."""
    kernel = traced(name)
    known = facts(kernel, machine=machine, **sizes)
    return kernel, default_few(product(kernel), known), known


@pytest.mark.parametrize("name", ["matmul", "epilogue", "gate_up", "batched"])
@pytest.mark.parametrize("machine", ["h200", "h100"])
@pytest.mark.parametrize("m", [1, 9, 16, 40, 64, 65, 100, 128])
def test_it_is_legal_for_every_product(name, machine, m):
    for n, k in SIZES:
        kernel, design, known = decided(name, machine, M=m, N=n, K=k, B=2)
        assert legal(kernel, design, known) == []


@pytest.mark.parametrize("m", [16, 64, 128])
@pytest.mark.parametrize(("n", "k"), SIZES[:5])
def test_no_sum_is_split_that_gives_an_sm_a_second_block(m, n, k):
    _, design, known = decided("matmul", M=m, N=n, K=k)
    parts = design.number("split.k", 1)
    blocks = parts * -(-m // design.number("tile.m")) * -(-n // design.number("tile.n"))
    assert parts == 1 or blocks <= known.machine.cores


def test_a_sum_of_unknown_length_is_whole():
    kernel = traced("matmul")
    known = facts(kernel, M=16, N=2048, K=8192)
    free = type(known)(known.sizes, known.unit, known.machine, known.aligned, frozenset({"M", "N"}))
    assert default_few(product(kernel), free).number("split.k", 1) == 1


def test_high_tiles_come_in_boxes_whose_lines_lie_side_by_side():
    kernel, design, known = decided("gate_up", M=64, N=14336, K=4096)
    assert (design.number("box.gate"), design.number("tile.k")) == (8, 128)
    layouts = {p.name: TensorLayout((None, 1), 16) for p in kernel.params}
    source = emit_cuda(lower_gpu(kernel, design, known), layouts, dict(known.sizes), known.machine).source
    mine = [line for line in source.splitlines() if "load_boxes<2, 64, " in line and "(s_gate[slot]" in line]
    copies = [line.rsplit(", ", 2)[1:] for line in mine]  # two boxes each: 64 elements of the sum, and the next 64
    assert len(copies) == design.number("tile.n") // 8
    assert [(a.strip(), b.strip(" );")) for a, b in copies[:3]] == [("k", "n0"), ("k", "n0 + 8"), ("k", "n0 + 16")]


@pytest.mark.parametrize(
    ("m", "n", "columns", "groups"),
    [(128, 16384, 128, 2), (128, 57344, 224, 2), (128, 128256, 256, 2), (64, 57344, 224, 1), (64, 128256, 256, 1)],
)
def test_wide_weights_come_in_tiles_whose_rounds_are_filled_best(m, n, columns, groups):
    _, design, _ = decided("matmul", M=m, N=n, K=4096)
    assert (design.number("tile.m"), design.number("tile.n"), design.number("warpgroups")) == (m, columns, groups)
    assert design.get("store.c") == "tma" and design.number("stages") * design.number("tile.k") >= 4 * 64


@pytest.mark.parametrize(("n", "swapped"), [(28672, False), (57344, False), (128256, True)])
def test_few_rows_of_wide_weights_are_shared_by_pairs_of_small_blocks(n, swapped):
    """Two of them have room on an SM, and their last round is full: 2560 of 2640 places, or 1002 of 1056."""
    _, design, known = decided("matmul", M=16, N=n, K=4096)
    assert (design.number("cluster.n"), bool(design.get("swap"))) == (2, swapped)
    columns, each = design.number("tile.n"), design.number("tile.k") * 2
    ring = design.number("stages") * (columns + design.number("tile.m")) * each
    assert 2 * ring < known.machine.limit("shared_bytes_per_block")
    blocks, places = -(-n // columns), 2 * known.machine.cores
    assert blocks > 0.93 * places * -(-blocks // places)


@pytest.mark.parametrize(("n", "k"), [(2048, 2048), (3072, 2048), (6144, 4096), (4096, 14336), (8192, 28672)])
def test_128_rows_lie_in_pairs_of_blocks_that_share_the_weights(n, k):
    _, design, _ = decided("matmul", M=128, N=n, K=k)
    assert (design.number("tile.m"), design.number("cluster.m"), design.number("inflight")) == (64, 2, 1)
    assert (design.get("store.c") == "tma") == (design.number("tile.n") % 32 == 0)
