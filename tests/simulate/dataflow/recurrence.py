"""The recurrence of a chain of stages, written down as it is: what event simulation must agree with."""

from __future__ import annotations


def makespan(times: list[list[float]], depths: list[int]) -> float:
    """start[j][i] = max(finish[j][i-1], finish[j-1][i], finish[j+1][i-b_j])."""
    stages, trips = len(times), len(times[0])
    finish = [[0.0] * trips for _ in range(stages)]
    for i in range(trips):
        for j in range(stages):
            own = finish[j][i - 1] if i else 0
            before = finish[j - 1][i] if j else 0
            after = finish[j + 1][i - depths[j]] if j + 1 < stages and i >= depths[j] else 0
            finish[j][i] = max(own, before, after) + times[j][i]
    return finish[-1][-1]
