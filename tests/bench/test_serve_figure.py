"""The picture of a served trace: blocks of requests, swaps where they happened, and no picture without results."""

from __future__ import annotations

import pytest

from tilewright.bench.serve_figure import Point, points, served_figure, swaps, write_served
from tilewright.errors import ArgumentError

TOKENS = [10, 20, 30, 40] * 4


def raw():
    """A pass of 16 requests: generic kernels take 2 us a token, learned ones 1 us."""
    generic, learned = [2 * n for n in TOKENS], TOKENS
    event = {"at": 103.0, "kind": "promote", "shape": "gate_up batch=257-1024 bf16 cpu", "detail": ""}
    other = {**event, "kind": "search"}
    side = {
        "began": 100.0,
        "tokens": TOKENS,
        "learning": [{"us": learned, "began": 104.0, "ended": 112.0}],
        "events": [other, event],
    }
    slower = {"passes": [{"us": [2 * us for us in generic]}]}
    return {"learning": side, "generic": [slower, {"passes": [{"us": generic}]}]}


def test_points_are_means_of_requests_in_a_row_beside_the_least_generic_time():
    found = points(raw())
    assert len(found) == 8
    assert found[0] == Point(pytest.approx(4.6), 1.0, 2.0)
    assert found[-1] == Point(pytest.approx(12.0), 1.0, 2.0)


def test_swaps_are_marked_by_what_they_were_for():
    assert swaps(raw()) == [(3.0, "gate_up 257-1024")]
    pytest.importorskip("matplotlib")
    (axes,) = served_figure(raw()).axes
    assert "gate_up 257-1024" in [text.get_text() for text in axes.texts]


def test_without_a_trace_there_is_nothing_to_draw(tmp_path):
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    with pytest.raises(ArgumentError, match="no results"):
        write_served(tmp_path)
