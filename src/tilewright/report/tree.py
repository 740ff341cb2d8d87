"""The explored part of the design graph as a tree to draw: each design under the one it was first made from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tilewright.design.design import Choice, Design
from tilewright.design.trial import Trial
from tilewright.report.words import change_words, mutation_words

MOST_NODES = 36
"""More rows than this do not read as one picture."""

MOST_CHANGES = 3
"""Decisions that an edge names."""


@dataclass(frozen=True)
class Node:
    """A design in the picture.

    `row` and `depth` are its place (rows downwards, depth to the right), `parent` the row of the design that it hangs
    under, `edge` the mutation, or where it is not `made` from that design, what tells them apart. `hidden` counts
    explored designs below it that are not drawn; `winning` is true on the way from the start to the winner.
    """

    row: int
    depth: int
    parent: int | None
    edge: str
    made: bool
    trial: Trial
    hidden: int
    winning: bool


def tree(trials: Sequence[Trial], winner: Design, most: int = MOST_NODES) -> list[Node]:
    """At most about `most` nodes: the way to the winner, then the fastest designs with all that they come from.

    A design that was made from none that was tried hangs under the nearest of those before it. Children stand by
    time, fastest first.
    """
    first: dict[str, Trial] = {}
    for trial in trials:
        first.setdefault(trial.design.hash, trial)
    above = _parents(first)
    kept, way = _kept(first, above, winner, most), set(_ancestry(above, winner.hash))
    children: dict[str | None, list[str]] = {}
    for name in first:
        children.setdefault(above[name], []).append(name)
    nodes: list[Node] = []

    def place(name: str, depth: int, parent: int | None) -> None:
        below = sorted(children.get(name, ()), key=lambda c: _seconds(first[c]))
        hidden = sum(_size(children, c) for c in below if c not in kept)
        row, made = len(nodes), above[name] is None or above[name] == first[name].parent
        nodes.append(Node(row, depth, parent, _edge(first, above, name), made, first[name], hidden, name in way))
        for child in (c for c in below if c in kept):
            place(child, depth + 1, row)

    for root in children.get(None, ()):
        if root in kept:
            place(root, 0, None)
    return nodes


def _parents(first: dict[str, Trial]) -> dict[str, str | None]:
    """What each design hangs under: what it was made from, if that was tried before it, else the nearest before it."""
    above: dict[str, str | None] = {}
    for name, trial in first.items():
        near = min(above, key=lambda n: _distance(first[n].design, trial.design), default=None)
        above[name] = trial.parent if trial.parent in above else near
    return above


def _distance(a: Design, b: Design) -> int:
    """How many decisions differ."""
    return len(dict(_changes(a, b)))


def _changes(a: Design, b: Design) -> list[tuple[str, Choice | None]]:
    """The decisions that lead from `a` to `b`; None for one that goes."""
    old, new = dict(a.decisions), dict(b.decisions)
    return [(n, new.get(n)) for n in sorted({*old, *new}) if old.get(n) != new.get(n)]


def _edge(first: dict[str, Trial], above: dict[str, str | None], name: str) -> str:
    trial, parent = first[name], above[name]
    if parent is None:
        return "start"
    if trial.parent == parent and trial.mutation is not None:
        return mutation_words(trial.mutation)
    changes = _changes(first[parent].design, trial.design)
    more = f" + {len(changes) - MOST_CHANGES} more" if len(changes) > MOST_CHANGES else ""
    return change_words(changes[:MOST_CHANGES]) + more


def _kept(first: dict[str, Trial], above: dict[str, str | None], winner: Design, most: int) -> set[str]:
    kept = set(_ancestry(above, winner.hash)) | set(list(first)[:1])
    for name in sorted(first, key=lambda n: _seconds(first[n])):
        line = set(_ancestry(above, name))
        if len(kept | line) <= most:
            kept |= line
    return kept


def _ancestry(above: dict[str, str | None], name: str | None) -> list[str]:
    """A design and all that it hangs under."""
    line: list[str] = []
    while name is not None and name in above:
        line.append(name)
        name = above[name]
    return line


def _size(children: dict[str | None, list[str]], name: str) -> int:
    """How many designs a branch holds."""
    return 1 + sum(_size(children, c) for c in children.get(name, ()))


def _seconds(trial: Trial) -> float:
    return trial.outcome.seconds if trial.outcome.seconds is not None else math.inf


def failures(trials: Iterable[Trial]) -> dict[str, int]:
    """How many trials came to each end but ok."""
    counts: dict[str, int] = {}
    for trial in trials:
        if trial.outcome.status != "ok":
            counts[trial.outcome.status] = counts.get(trial.outcome.status, 0) + 1
    return counts
