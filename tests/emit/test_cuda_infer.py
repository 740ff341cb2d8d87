"""How axes are dealt to threads: runs of neighbours as wide as loads may be, and no wider than what is stored."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from test_cuda_loops import lowered

from tilewright.emit.abi import TensorLayout
from tilewright.emit.cuda_infer import infer, pieces

LANES = {"lanes": ("d", "d1", "m"), "tile.m": 1, "tile.d": 1024, "tile.d1": 1024, "vec.weight": 8, "vec.y": 8}


def runs(kernel, **align):
    """The run of each axis, where rows of these tensors are aligned so, and those of others to 16 bytes."""
    layouts = {
        p.name: TensorLayout((*[None] * (len(p.dims) - 1), 1), align.get(p.name, 16)) for p in kernel.params if p.dims
    }
    return {a: found.run for a, found in infer(kernel, layouts, {"D": 4096}, 128).of.items() if a != "m"}


def test_threads_hold_as_many_neighbours_as_an_access_takes():
    kernel, _ = lowered("rmsnorm", **LANES)
    assert runs(kernel) == {"d": 8, "d1": 8}


@pytest.mark.parametrize("align", [2, 4, 8])
def test_threads_hold_no_more_neighbours_than_a_store_takes(align):
    kernel, _ = lowered("rmsnorm", **LANES)  # else the stores of a warp would lie sixteen bytes apart
    assert runs(kernel, y=align, x=align) == {"d": 8, "d1": align // 2}


def test_what_stays_in_registers_is_dealt_alike_where_it_is_read_and_where_it_is_used():
    kernel, _ = lowered("rmsnorm", **LANES, **{"keep.x1": True})
    assert pieces(kernel) == {"D": ["d", "d1"]}
    assert runs(kernel, y=2) == {"d": 1, "d1": 1, "D": 1}
    assert runs(kernel, x=2, weight=2) == {"d": 8, "d1": 8, "D": 8}  # what is only read lies in aligned words
