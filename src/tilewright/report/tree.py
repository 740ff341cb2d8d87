"""The explored part of the design graph as a tree to draw: each design under the one it was first made from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tilewright.design.design import Design
from tilewright.design.trial import Trial
from tilewright.report.words import mutation_words

MOST_NODES = 36
"""More rows than this do not read as one picture."""


@dataclass(frozen=True)
class Node:
    """A design in the picture.

    `row` and `depth` are its place (rows downwards, depth to the right), `parent` the row of the design that it was
    made from, `edge` the mutation. `hidden` counts explored designs below it that are not drawn; `winning` is true on
    the way from the start to the winner.
    """

    row: int
    depth: int
    parent: int | None
    edge: str
    trial: Trial
    hidden: int
    winning: bool


def tree(trials: Sequence[Trial], winner: Design, most: int = MOST_NODES) -> list[Node]:
    """At most about `most` nodes: the way to the winner, then the fastest designs with all that they come from.

    A design whose parent was not tried is drawn at the left, without an edge. Children stand by time, fastest first.
    """
    first: dict[str, Trial] = {}
    for trial in trials:
        first.setdefault(trial.design.hash, trial)
    kept = _kept(first, winner, most)
    way = set(_ancestry(first, winner.hash))
    children: dict[str | None, list[str]] = {}
    for name, trial in first.items():
        children.setdefault(trial.parent if trial.parent in first and trial.parent != name else None, []).append(name)
    nodes: list[Node] = []
    reached: set[str] = set()

    def place(name: str, depth: int, parent: int | None) -> None:
        if name in reached:  # a record that names its own descendant as its parent is no tree
            return
        reached.add(name)
        below = sorted(children.get(name, ()), key=lambda c: _seconds(first[c]))
        shown, hidden = [c for c in below if c in kept], sum(_size(children, c) for c in below if c not in kept)
        row, edge = len(nodes), mutation_words(first[name].mutation or "start")
        nodes.append(Node(row, depth, parent, edge, first[name], hidden, name in way))
        for child in shown:
            place(child, depth + 1, row)

    for root in children.get(None, ()):
        if root in kept:
            place(root, 0, None)
    return nodes


def _kept(first: dict[str, Trial], winner: Design, most: int) -> set[str]:
    kept = set(_ancestry(first, winner.hash)) | set(list(first)[:1])
    for name in sorted(first, key=lambda n: _seconds(first[n])):
        line = set(_ancestry(first, name))
        if len(kept | line) <= most:
            kept |= line
    return kept


def _ancestry(first: dict[str, Trial], name: str | None) -> list[str]:
    """A design and all that it comes from."""
    line: list[str] = []
    while name in first and name not in line:
        assert name is not None
        line.append(name)
        name = first[name].parent
    return line


def _size(children: dict[str | None, list[str]], name: str) -> int:
    """How many designs a branch holds."""
    count, open_, seen = 0, [name], set[str]()
    while open_:
        at = open_.pop()
        if at not in seen:
            seen.add(at)
            count += 1
            open_ += children.get(at, ())
    return count


def _seconds(trial: Trial) -> float:
    return trial.outcome.seconds if trial.outcome.seconds is not None else math.inf


def failures(trials: Iterable[Trial]) -> dict[str, int]:
    """How many trials came to each end but ok."""
    counts: dict[str, int] = {}
    for trial in trials:
        if trial.outcome.status != "ok":
            counts[trial.outcome.status] = counts.get(trial.outcome.status, 0) + 1
    return counts
