"""The learned correction: boosted trees that predict log(measured / predicted) from features of a design.

Trained by scikit-learn (extra `search`), kept and applied as plain data: trees in JSON, walked by NumPy. Without
scikit-learn nothing is trained, which is said once, and the analytical model stands alone.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Row = tuple[tuple[float, ...], float, float]
"""(features, predicted seconds, measured seconds)."""

_VERSION = 1
FEWEST_ROWS = 30
"""Fewer measurements teach nothing that holds elsewhere."""
FEWEST_ALIKE = 5
"""Measurements that a leaf of a tree holds at least. Of an operator with fewer other shapes that were measured no leaf
is its own: a correction would be of other operators, and the prediction stands as it is."""


@dataclass(frozen=True)
class Tree:
    """A regression tree in arrays: at node n go left where feature[n] <= threshold[n]; a leaf has feature -1."""

    feature: tuple[int, ...]
    threshold: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    value: tuple[float, ...]

    def __post_init__(self) -> None:
        count = len(self.feature)
        if not count or any(len(x) != count for x in (self.threshold, self.left, self.right, self.value)):
            raise ValueError("the arrays of a tree have one entry for each node")
        for n, feature in enumerate(self.feature):
            # Children after their parent: a walk ends, whatever the file says.
            if feature >= 0 and not (n < self.left[n] < count and n < self.right[n] < count):
                raise ValueError(f"node {n} of a tree leads to {self.left[n]} and {self.right[n]} of {count}")

    def predict(self, x: npt.NDArray[np.float64]) -> float:
        """The value of the leaf that `x` falls into."""
        n = 0
        while self.feature[n] >= 0:
            n = self.left[n] if x[self.feature[n]] <= self.threshold[n] else self.right[n]
        return self.value[n]


class Correction:
    """log(measured / predicted) as a sum of trees; without trees the prediction stays as it is."""

    def __init__(self, trees: tuple[Tree, ...] = (), base: float = 0.0, width: int = 0) -> None:
        self.trees, self.base, self.width = trees, base, width

    @classmethod
    def fit(cls, rows: Sequence[Row], seed: int = 0) -> Correction:
        """A correction learned from measurements; an empty one for fewer than FEWEST_ROWS, or without scikit-learn."""
        usable = [r for r in rows if r[1] > 0 and r[2] > 0]
        boosting = _boosting()
        if boosting is None or len(usable) < FEWEST_ROWS:
            return cls()
        x = np.array([r[0] for r in usable])
        y = np.array([math.log(r[2] / r[1]) for r in usable])
        model = boosting(
            n_estimators=200, learning_rate=0.06, max_depth=4, min_samples_leaf=FEWEST_ALIKE, subsample=0.7,
            max_features=0.5, loss="huber", random_state=seed,
        )  # fmt: skip
        model.fit(x, y)
        return cls.of(model)

    @classmethod
    def of(cls, model: Any) -> Correction:
        """The trees of a fitted GradientBoostingRegressor."""
        trees = tuple(_tree(t[0].tree_, model.learning_rate) for t in model.estimators_)
        base = float(np.ravel(model.init_.predict(np.zeros((1, model.n_features_in_))))[0])
        return cls(trees, base, int(model.n_features_in_))

    def factor(self, features: Sequence[float]) -> float:
        """What predicted seconds are multiplied by."""
        if not self.trees or len(features) != self.width:
            return 1.0
        # scikit-learn compares in single precision.
        x = np.asarray(features, np.float32).astype(np.float64)
        return math.exp(self.base + sum(t.predict(x) for t in self.trees))

    def predict(self, features: Sequence[float], seconds: float) -> float:
        """Predicted seconds, corrected."""
        return seconds * self.factor(features)

    # ------------------------------------------------------------------------------------------------- data
    def to_json(self) -> str:
        """Data only: numbers in lists."""
        trees = [vars(t) for t in self.trees]
        return json.dumps({"version": _VERSION, "base": self.base, "width": self.width, "trees": trees})

    @classmethod
    def from_json(cls, text: str) -> Correction:
        """The correction that `to_json` wrote; ValueError if it is none, or could lead a walk astray."""
        try:
            data = json.loads(text)
            if data["version"] != _VERSION:
                raise ValueError(f"version {data['version']}")
            trees = tuple(_from_lists(t) for t in data["trees"])
            width = int(data["width"])
            if any(f >= width for t in trees for f in t.feature):
                raise ValueError("a tree asks for a feature that there is not")
            return cls(trees, float(data["base"]), width)
        except (KeyError, TypeError, ValueError) as e:
            raise ValueError(f"this is no correction of the cost model ({e}); train it again") from None


def _from_lists(tree: dict[str, list[float]]) -> Tree:
    def ints(name: str) -> tuple[int, ...]:
        return tuple(int(v) for v in tree[name])

    floats = {n: tuple(float(v) for v in tree[n]) for n in ("threshold", "value")}
    return Tree(ints("feature"), floats["threshold"], ints("left"), ints("right"), floats["value"])


def _tree(tree: Any, rate: float) -> Tree:
    leaf = tree.children_left < 0
    return Tree(
        tuple(int(f) for f in np.where(leaf, -1, tree.feature)),
        tuple(float(v) for v in tree.threshold),
        tuple(int(v) for v in tree.children_left),
        tuple(int(v) for v in tree.children_right),
        tuple(float(rate * v) for v in tree.value[:, 0, 0]),
    )


@cache
def _boosting() -> Any:
    """scikit-learn's gradient boosting, or None, said once."""
    try:
        from sklearn.ensemble import GradientBoostingRegressor
    except ImportError:
        warnings.warn(
            "scikit-learn is not installed, so the cost model learns nothing from measurements; "
            "pip install 'tilewright[search]'",
            stacklevel=3,
        )
        return None
    return GradientBoostingRegressor


__all__ = ["FEWEST_ALIKE", "FEWEST_ROWS", "Correction", "Row", "Tree"]
