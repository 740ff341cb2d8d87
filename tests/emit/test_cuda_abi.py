"""The argument of a CUDA kernel: places of words, bytes, and the number of blocks."""

from __future__ import annotations

from tilewright import operators
from tilewright.emit.abi import Extent, Reserve
from tilewright.emit.cuda_abi import CudaModule, Grid, Scratch, args_struct, argument_bytes

PROGRAM = operators.matmul.kernel.trace("bf16")
RMSNORM = operators.rmsnorm.kernel.trace("bf16")


def test_words_follow_one_another_without_gaps():
    parts = Scratch(Reserve("parts", 4, (Extent("M"), Extent("N"))))
    module = CudaModule("", "matmul", 128, Grid(()), scratch=(parts,))
    words = module.words(PROGRAM)
    assert words.scratch_word("parts") == 0
    assert [words.tensor(n) for n in ("a", "b", "c")] == [1, 4, 7]
    assert words.stride("b", 1) == 6
    assert [words.dim(d) for d in PROGRAM.dims] == [10, 11, 12]
    assert words.count == 13


def test_scalars_come_last():
    words = CudaModule("", "rmsnorm", 128, Grid(())).words(RMSNORM)
    assert words.scalar("eps") == words.count - 1


def test_the_argument_is_as_large_as_cpp_makes_it():
    assert argument_bytes(0, 3) == 24
    assert argument_bytes(2, 3) == 384  # 256 and 24, rounded up to the alignment of a map
    assert "CUtensorMap maps[2]" in args_struct(2, 3)
    assert "maps" not in args_struct(0, 3)


def test_a_grid_counts_ragged_tiles_splits_and_whole_clusters():
    sizes = {"M": 300, "N": 1000}
    assert Grid((("M", 128), ("N", 256))).tiles(sizes) == 3 * 4
    assert Grid((("M", 128), ("N", 256)), splits=2).tiles(sizes) == 24
    assert Grid((("M", 128), ("N", 256)), cluster=2, cluster_axes=((0, 2),)).tiles(sizes) == 4 * 4


def test_a_persistent_grid_has_whole_clusters_and_no_more_than_fit():
    grid = Grid((("M", 128), ("N", 256)), cluster=2, cluster_axes=((0, 2),), persistent=True)
    assert grid.blocks({"M": 8192, "N": 8192}, 131) == 130
    assert grid.blocks({"M": 128, "N": 256}, 132) == 2
    assert Grid((("M", 128),)).blocks({"M": 1280}, 4) == 10
