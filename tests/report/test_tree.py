"""The drawn part of the design graph: the winner's way is in it, and every row stands once."""

from __future__ import annotations

from tilewright.design.design import Design
from tilewright.design.trial import Outcome, Trial
from tilewright.report.tree import failures, tree

from .fakes import evidence, walked


def trial(name: int, parent: int | None, seconds: float | None = 1.0) -> Trial:
    outcome = Outcome("ok", seconds) if seconds else Outcome("crash")
    above = None if parent is None else Design.of({"tile.m": parent}).hash
    return Trial(Design.of({"tile.m": name}), 1.0, outcome, above, None if parent is None else f"SetTile(m, {name})")


def test_a_small_search_is_drawn_whole():
    trials = [trial(1, None, 9.0), trial(2, 1, 3.0), trial(3, 1, 2.0), trial(4, 2, 1.0), trial(5, 1, None)]
    nodes = tree(trials, trials[3].design)
    assert [(n.edge, n.depth, n.parent) for n in nodes] == [
        ("start", 0, None),
        ("SetTile m 3", 1, 0),
        ("SetTile m 2", 1, 0),
        ("SetTile m 4", 2, 2),
        ("SetTile m 5", 1, 0),
    ]
    assert [n.winning for n in nodes] == [True, False, True, True, False]
    assert failures(trials) == {"crash": 1}


def test_what_is_left_out_is_counted():
    trials = [trial(1, None, 9.0), trial(2, 1, 1.0), *(trial(n, 1, 5.0 + n) for n in range(3, 9)), trial(9, 8, 99.0)]
    nodes = tree(trials, trials[1].design, most=4)
    assert len(nodes) == 4
    assert sum(n.hidden for n in nodes) == len(trials) - 4


def test_a_large_search_keeps_the_way_to_the_winner():
    found = evidence(120)
    nodes = tree(found.trials, found.winner, most=20)
    assert len(nodes) <= 20
    assert any(n.trial.design == found.winner and n.winning for n in nodes)
    assert all(n.parent is not None and nodes[n.parent].winning for n in nodes if n.winning and n.depth)


def test_a_design_made_from_none_hangs_under_the_nearest_before_it():
    far, near = Design.of({"tile.m": 1, "tile.n": 1, "tile.k": 1}), Design.of({"tile.m": 8, "tile.n": 8, "tile.k": 1})
    late = Design.of({"tile.m": 8, "tile.n": 4, "tile.k": 1})
    nodes = tree([Trial(d, 1.0, Outcome("ok", 1.0 + n)) for n, d in enumerate((far, near, late))], late)
    assert [(n.edge, n.parent, n.made) for n in nodes] == [
        ("start", None, True),
        ("SetTile m 8 + SetTile n 8", 0, False),
        ("SetTile n 4", 1, False),
    ]


def test_records_that_go_round_end():
    nodes = tree([trial(1, 2), trial(2, 1)], Design.of({"tile.m": 2}))
    assert [(n.parent, n.made) for n in nodes] == [(None, True), (0, True)]
    assert [n.parent for n in tree([trial(1, None), trial(3, 7)], Design.of({"tile.m": 3}))] == [None, 0]


def test_the_same_search_gives_the_same_picture():
    trials = walked(40, 5, True)
    assert tree(trials, trials[7].design) == tree(trials, trials[7].design)
