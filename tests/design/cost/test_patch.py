"""What an access touches, by hand."""

from __future__ import annotations

from tilewright.design.cost.patch import patch
from tilewright.design.cost.schedule import Access

ROWS = Access("a", ("m", "k"), (64, 4096), 4, 1)


def test_rows_of_part_of_a_matrix_are_runs_a_row_apart():
    p = patch(ROWS, {"m": 8, "k": 32})
    assert (p.rows, p.run, p.stride) == (8, 128, 16384)
    assert p.touched == 8 * 128


def test_a_run_shorter_than_a_line_touches_the_line():
    assert patch(ROWS, {"m": 8, "k": 1}).touched == 8 * 64


def test_whole_rows_are_one_run():
    p = patch(ROWS, {"m": 8, "k": 4096})
    assert (p.rows, p.run) == (1, 8 * 16384)


def test_a_panel_is_one_piece():
    panel = Access("b panel", ("n", "k"), (48, 128), 4, None)
    assert patch(panel, {"n": 48, "k": 128}).touched == 48 * 128 * 4


def test_rows_a_power_of_two_apart_share_the_sets_of_a_cache():
    # 32 KiB of 8 ways are 64 sets; rows 16 KiB (256 lines) apart all start in one set.
    p = patch(ROWS, {"m": 48, "k": 16})
    assert p.touched == 48 * 64
    assert p.held(32 << 10) == 48 * 64 * 64
    odd = Access("a", ("m", "k"), (64, 4096 + 16), 4, 1)  # 257 lines apart: each in a set of its own
    assert patch(odd, {"m": 48, "k": 16}).held(32 << 10) == 48 * 64
