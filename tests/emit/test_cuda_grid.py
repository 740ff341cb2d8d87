"""The orders in which the tiles of a grid are dealt out: `tw/grid.cuh` itself, compiled for this CPU."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise

import pytest

from tilewright.build.nvrtc import header

COMPILER = shutil.which("g++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no g++")

SHAPES = [(1, 1), (1, 9), (9, 1), (2, 3), (8, 8), (7, 13), (13, 7), (16, 64), (33, 20), (5, 128), (100, 3), (31, 31)]
ORDERS = {"row": "row_order", "hilbert": "hilbert_order", "groups of 3": "grouped_order<3>",
          "groups of 8": "grouped_order<8>"}  # fmt: skip
_MAIN = """
#include <cstdlib>
#include <cstdio>
#define __device__
static struct {{ unsigned x; }} gridDim;
static unsigned atomicAdd(unsigned* p, unsigned n) {{ unsigned old = *p; *p += n; return old; }}
{text}
int main() {{
  const int shapes[][2] = {{{shapes}}};
  for (auto& s : shapes)
    for (int item = 0; item < s[0] * s[1]; ++item) {{
      const tw::Tile2 at = tw::{order}(item, s[0], s[1]);
      printf("%d %d\\n", at.i, at.j);
    }}
  gridDim.x = 4;
  unsigned ticket = 0;
  for (int n = 0; n < 10; ++n) {{
    const int item = tw::draw(&ticket, 10);
    printf("%d %u\\n", item, ticket);
  }}
}}
"""


@pytest.fixture(scope="module")
def dealt(tmp_path_factory):
    """For each order: the tiles of each shape, in order; and ten draws of ten items by four blocks."""
    folder, found = tmp_path_factory.mktemp("grid"), {}
    shapes = ", ".join(f"{{{r}, {c}}}" for r, c in SHAPES)
    for n, (name, order) in enumerate(ORDERS.items()):
        source, program = folder / f"{n}.cpp", folder / str(n)
        text = header("tw/grid.cuh").replace("#pragma once", "")
        source.write_text(_MAIN.format(text=text, shapes=shapes, order=order), "utf-8")
        subprocess.run([COMPILER, "-std=c++17", "-w", "-O1", "-o", program, source], check=True)
        out = subprocess.run([program], check=True, capture_output=True, text=True).stdout
        lines, at = [tuple(map(int, line.split())) for line in out.splitlines()], 0
        for rows, columns in SHAPES:
            found[name, rows, columns] = lines[at : at + rows * columns]
            at += rows * columns
        found["draws"] = lines[at:]
    return found


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("order", ORDERS)
def test_every_tile_is_dealt_once(dealt, order, rows, columns):
    tiles = dealt[order, rows, columns]
    assert sorted(tiles) == [(i, j) for i in range(rows) for j in range(columns)]


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_along_the_curve_a_tile_lies_beside_the_one_before_it(dealt, rows, columns):
    """At most one step along each axis, and hardly ever along both: what neighbours in time read, they share."""
    tiles = dealt["hilbert", rows, columns]
    steps = [(abs(a - c), abs(b - d)) for (a, b), (c, d) in pairwise(tiles)]
    assert all(max(step) == 1 for step in steps)
    assert sum(min(step) for step in steps) <= 1  # one diagonal, where no curve without one exists


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_rows_of_a_group_walk_together(dealt, rows, columns):
    tiles = dealt["groups of 8", rows, columns]
    for first in range(0, rows, 8):
        height = min(8, rows - first)
        group = tiles[first * columns : (first + height) * columns]
        assert group == [(first + n % height, n // height) for n in range(height * columns)]


def test_what_is_drawn_comes_after_the_first_of_each_block_and_leaves_the_ticket_at_zero(dealt):
    items, tickets = zip(*dealt["draws"], strict=True)
    assert list(items) == list(range(4, 14)) and tickets[-1] == 0
