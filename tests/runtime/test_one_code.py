"""Designs of one machine code are one kernel: it is tried once, and is one finalist."""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.design import Design
from tilewright.design.finals import select
from tilewright.design.trial import Outcome, Trial
from tilewright.runtime.subject import Subject
from tilewright.runtime.trial import TrialRunner

TILES = {"tile.d": 64, "tile.d1": 64, "tile.d2": 64, "tile.m": 1}
SAME = [Design.of({**TILES, "lanes": lanes}) for lanes in (("d", "d1", "d2"), ("d2", "d1", "d"))]
OTHER = Design.of({**TILES, "tile.d": 32, "lanes": ("d", "d1", "d2")})


def test_a_machine_code_is_tried_once(monkeypatch, tmp_path):
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path))
    with TrialRunner(Subject.of("softmax", {"M": 16, "D": 256}, "f32", threads=1)) as runner:
        timed = []
        measured = runner._timed
        monkeypatch.setattr(runner, "_timed", lambda designs: (timed.append(list(designs)), measured(designs))[1])
        one, same, other = runner.evaluate([*SAME, OTHER])
        again = runner.evaluate([SAME[1]])[0]
    assert one.code == same.code != other.code
    assert timed[0] == [SAME[0], OTHER] and timed[1:] == [[]]
    assert same.seconds == one.seconds == again.seconds
    assert same.reason == f"the same machine code as {SAME[0].hash}"


def test_of_one_code_the_first_in_order_is_the_finalist():
    outcome = Outcome("ok", 1e-3, (1e-3,), 0.01, code="a")
    trials = [
        Trial(OTHER, 1e-3, replace(outcome, code="b")),
        Trial(SAME[1], 1e-3, outcome, "parent", "mutation"),
        Trial(SAME[0], 1e-3, outcome),
    ]
    assert set(select(trials)) == {OTHER, SAME[0]}


def test_designs_whose_code_is_not_known_are_all_apart():
    trials = [Trial(d, 1e-3, Outcome("ok", 1e-3, (1e-3,), 0.01)) for d in (*SAME, OTHER)]
    assert set(select(trials)) == {*SAME, OTHER}


def test_an_outcome_of_an_older_book_has_no_code():
    data = Outcome("ok", 1.0, (1.0,), 0.1, code="abc").to_dict()
    assert Outcome.from_dict(data).code == "abc"
    del data["code"]
    assert Outcome.from_dict(data).code == ""
