"""Prompts, and runs of an engine, that its tests share."""

from __future__ import annotations

PROMPTS = [[5, 17, 200, 3, 99], [42], [8, 8, 250, 31, 77, 1, 64, 128], [254, 19], [7] * 30, [60, 61, 62]]


def run(engine, requests):
    while not all(r.finished for r in requests):
        engine.step()
        engine.scheduler.check_integrity()


def alone(llm, ids, params):
    request = llm.engine.add(ids, params)
    run(llm.engine, [request])
    return request.output_ids
