"""The learned correction: trees as data that predict what the library predicts."""

from __future__ import annotations

import json
import math
import random
import statistics

import numpy as np
import pytest
from programs import facts, traced

from tilewright.design.cost import correction, features
from tilewright.design.cost.accuracy import accuracy, cross_validated, spearman, trusted
from tilewright.design.cost.correction import Correction
from tilewright.design.design import Design


def rows(count: int, seed: int = 0):
    """Measured is predicted times exp(what the second feature says)."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        x = tuple(rng.random() for _ in range(4))
        made.append((x, 1e-3, 1e-3 * math.exp(1.0 if x[1] > 0.5 else -1.0)))
    return made


def test_what_is_learned_holds_for_new_rows():
    learned = Correction.fit(rows(200))
    off = [abs(math.log(learned.predict(x, predicted) / measured)) for x, predicted, measured in rows(60, seed=1)]
    assert statistics.median(off) < 0.1  # uncorrected it is 1


def test_trees_predict_what_the_library_predicts():
    boosting = pytest.importorskip("sklearn.ensemble").GradientBoostingRegressor
    data = rows(120)
    x, y = np.array([r[0] for r in data]), np.array([math.log(r[2] / r[1]) + r[0][0] for r in data])
    model = boosting(n_estimators=30, max_depth=3, random_state=0).fit(x, y)
    mine = Correction.from_json(Correction.of(model).to_json())
    new = np.array([r[0] for r in rows(100, seed=2)])
    for row, theirs in zip(new, model.predict(new), strict=True):
        assert math.log(mine.factor(row)) == pytest.approx(float(theirs), abs=1e-9)


def test_json_is_data_only_and_round_trips():
    learned = Correction.fit(rows(60))
    again = Correction.from_json(learned.to_json())
    assert again.to_json() == learned.to_json()
    assert all(again.factor(r[0]) == learned.factor(r[0]) for r in rows(20, seed=3))


@pytest.mark.parametrize("change", [
    {"version": 99}, {"trees": 3}, {"width": 0},
    {"trees": [{"feature": [0], "threshold": [0.0], "left": [0], "right": [0], "value": [0.0]}]},  # would never end
    {"trees": [{"feature": [], "threshold": [], "left": [], "right": [], "value": []}]},
])  # fmt: skip
def test_foreign_json_is_refused(change):
    data = json.loads(Correction.fit(rows(60)).to_json()) | change
    with pytest.raises(ValueError, match="train it again"):
        Correction.from_json(json.dumps(data))


def test_without_the_library_the_prediction_stands_and_it_is_said_once(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.ensemble", None)
    correction._boosting.cache_clear()
    try:
        with pytest.warns(UserWarning, match="tilewright\\[search\\]") as said:
            assert Correction.fit(rows(60)).predict((0.0,) * 4, 2.0) == 2.0
            assert Correction.fit(rows(60)).predict((0.0,) * 4, 2.0) == 2.0
        assert len(said) == 1
    finally:
        correction._boosting.cache_clear()


def test_few_measurements_teach_nothing():
    assert Correction.fit(rows(correction.FEWEST_ROWS - 1)).predict((0.0,) * 4, 2.0) == 2.0


def test_rank_correlation():
    assert spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(0.8)  # 1 - 6 * 4 / (5 * 24)
    assert spearman([1, 1, 1], [1, 2, 3]) == 0


def test_errors_and_first_choices():
    found = accuracy([1.0, 2.0, 4.0], [2.0, 1.0, 4.0])
    assert (found.median_error, found.first, found.first16) == (0.5, 0.5, 1.0)
    assert found.mean_error == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    with pytest.raises(ValueError, match="cannot be compared"):
        accuracy([1.0], [1.0, 2.0])


def test_folds_never_train_on_the_group_they_judge(monkeypatch):
    seen = []

    def fit(data, seed=0):
        seen.append({r[0][0] for r in data})
        return Correction()

    monkeypatch.setattr(Correction, "fit", staticmethod(fit))
    data = [((float(g),), 1.0, 1.0) for g in (0, 0, 1, 1, 2, 2)]
    cross_validated(data, [r[0][0] for r in data], folds=3)
    assert [sorted(s) for s in seen] == [[1.0, 2.0], [0.0, 2.0], [0.0, 1.0]]


def test_a_kind_of_which_few_groups_were_seen_keeps_its_prediction():
    """Of a held-out row of `count` groups of a kind, no more than `count - 1` were seen."""
    pytest.importorskip("sklearn")
    for count, used in ((correction.FEWEST_ALIKE, False), (2 * correction.FEWEST_ALIKE, True)):
        data = rows(100)
        kinds = ["rare" if n < 2 * count else "often" for n in range(100)]
        groups = [n // 2 for n in range(100)]
        plain, judged = cross_validated(data, groups), cross_validated(data, groups, kinds=kinds)
        assert judged[2 * count :] == plain[2 * count :]
        assert judged[: 2 * count] == (plain[: 2 * count] if used else [1e-3] * 2 * count)


def test_a_kind_that_others_mislead_keeps_its_prediction():
    """The model is right of one kind, and the features that mend another one only add chance to it."""
    pytest.importorskip("sklearn")
    rng = random.Random(1)
    wrong = rows(120)
    right = [((*x[:3], x[3] + 1e-9), 1e-3, 1e-3 * math.exp(rng.gauss(0.0, 0.01))) for x, _, _ in rows(24, seed=2)]
    data, kinds = wrong + right, ["wrong"] * 120 + ["right"] * 24
    groups = [n // 2 for n in range(144)]
    assert trusted(data, groups, kinds) == {"wrong"}
    judged = cross_validated(data, groups, kinds=kinds)
    assert judged[120:] == [1e-3] * 24
    assert judged[:120] == cross_validated(data, groups)[:120]


def test_the_tile_of_each_axis_is_a_feature_of_its_own():
    """Two designs with the same tiles on other axes: what a correction is told of them differs."""
    kernel = traced("softmax")
    known = facts(kernel, "zen5", M=1024, D=1024)
    tiles = {"tile.m": 1, "tile.d": 16, "tile.d1": 64, "tile.d2": 64, "lanes": ("d2", "d1", "d")}
    one, other = (
        features(kernel, Design.of({**tiles, **swapped}), known) for swapped in ({}, {"tile.d": 64, "tile.d1": 16})
    )
    assert len(one) == len(other)
    places = len(one) - 12  # the last: tile and unrolling of each of six axes
    assert one[places:] != other[places:]
    assert one[places : places + 8] == (0.0, 0.0, 4.0, 0.0, 6.0, 0.0, 6.0, 0.0)
