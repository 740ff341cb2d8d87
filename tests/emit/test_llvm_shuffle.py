"""Register transposes: every shuffle is one instruction without a table, and the columns come out in order."""

from __future__ import annotations

import re
from itertools import product

import pytest

from tilewright.emit.llvm_builder import Builder
from tilewright.emit.llvm_shuffle import transposed

Vector = list[tuple[int, int]]


def shuffled(text: str, rows: dict[str, Vector]) -> dict[str, Vector]:
    """The values of all names after the shuffles in `text`."""
    values = dict(rows)
    for line in text.splitlines():
        name, x, *more = re.findall(r"%\w+", line)
        both = values[x] + (values[more[0]] if more else [])
        picks = re.findall(r"i32 (\d+)", line)
        values[name] = [both[int(n)] for n in picks] if "shufflevector" in line else both
    return values


@pytest.mark.parametrize("element", ["i16", "i32", "float", "double"])
@pytest.mark.parametrize("width", [2, 4, 8, 16])
@pytest.mark.parametrize("blocks", [1, 2])
def test_columns_are_columns(element: str, width: int, blocks: int) -> None:
    b, count = Builder(set()), width * blocks
    rows: dict[str, Vector] = {f"%r{r}": [(r, c) for c in range(width)] for r in range(count)}
    columns = transposed(b, list(rows), element, width)
    values = shuffled(b.text(), rows)
    assert [values[c] for c in columns] == [[(r, c) for r in range(count)] for c in range(width)]


def test_16_rows_of_16_floats_cost_64_shuffles_that_are_unpacks_or_move_whole_pieces() -> None:
    b = Builder(set())
    transposed(b, [f"%r{n}" for n in range(16)], "float", 16)
    picks = re.findall(r"<16 x i32> <(.*)>", b.text())
    assert len(picks) == 64
    low = [q + 16 * which + n for q in (0, 4, 8, 12) for n, which in product((0, 1), (0, 1))]
    assert ", ".join(f"i32 {n}" for n in low) in picks  # vunpcklps
    assert ", ".join(f"i32 {n}" for n in (*range(4), *range(8, 12), *range(16, 20), *range(24, 28))) in picks


def test_asking_twice_writes_nothing_more() -> None:
    b = Builder(set())
    rows = [f"%r{n}" for n in range(8)]
    first = transposed(b, rows, "float", 8)
    text = b.text()
    assert transposed(b, rows, "float", 8) == first
    assert b.text() == text
