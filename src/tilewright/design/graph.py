"""The design graph as plain data: designs that were tried are nodes, mutations between them edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.mutation import Illegal
from tilewright.design.mutations import suggested
from tilewright.design.trial import Trial
from tilewright.language import ir


def graph(kernel: ir.Kernel, facts: Facts, trials: Sequence[Trial], winner: Design | None = None) -> dict[str, Any]:
    """Nodes and edges, ready for JSON or for drawing.

    A node has `id` (the design's hash), `design` (its decisions), `seconds` or None, `predicted`, `status`, and marks
    `start` and `winner`; an edge `source`, `target`, `mutation`, and `taken`: whether the search went along it. All
    single mutations between two nodes are edges, in the direction in which they lead.
    """
    nodes: dict[str, dict[str, Any]] = {}
    for trial in trials:
        nodes.setdefault(trial.design.hash, _node(trial, winner))
    edges = {(t.parent, t.design.hash): _edge(t.parent, t.design.hash, t.mutation, True) for t in trials if t.parent}
    edges = {ends: edge for ends, edge in edges.items() if ends[0] in nodes}
    for trial in trials:
        for mutation in suggested(kernel, trial.design, facts):
            result = mutation.apply(trial.design)
            if not isinstance(result, Illegal) and result.hash in nodes:
                ends = (trial.design.hash, result.hash)
                edges.setdefault(ends, _edge(*ends, str(mutation), False))
    return {"nodes": list(nodes.values()), "edges": list(edges.values())}


def _node(trial: Trial, winner: Design | None) -> dict[str, Any]:
    return {
        "id": trial.design.hash,
        "design": {name: list(c) if isinstance(c, tuple) else c for name, c in trial.design.decisions},
        "seconds": trial.outcome.seconds,
        "predicted": trial.predicted,
        "status": trial.outcome.status,
        "start": trial.parent is None,
        "winner": trial.design == winner,
    }


def _edge(source: str | None, target: str, mutation: str | None, taken: bool) -> dict[str, Any]:
    return {"source": source, "target": target, "mutation": mutation, "taken": taken}


__all__ = ["graph"]
