"""A crew: every task gets a result, whoever dies of one."""

from __future__ import annotations

import os

import pytest

from tilewright.bench.crew import Crew, Spent


def work(task):
    match task:
        case "trap":
            os._exit(70)
        case "error":
            raise ZeroDivisionError
        case "spent":
            raise Spent((task, os.getpid()))
    return task, os.getpid()


def died(task, why):
    return task, why


def test_each_task_has_a_result_and_members_go_on():
    found = list(Crew(work, died, 2).each(["a", "b", "c", "d", "e"]))
    assert sorted(name for name, _ in found) == ["a", "b", "c", "d", "e"]
    assert len({process for _, process in found}) <= 2 and os.getpid() not in {process for _, process in found}


def test_who_dies_of_a_task_costs_that_task_only():
    found = dict(Crew(work, died, 1).each(["trap", "a", "b", "error", "c"]))
    assert found["trap"] == "its process ended, status 70" and found["error"] == "its process ended, status 1"
    assert found["a"] == found["b"] != found["c"]


def test_who_is_spent_tells_its_result_and_leaves():
    found = dict(Crew(work, died, 1).each(["a", "spent", "b"]))
    assert found["a"] == found["spent"] != found["b"]


def test_each_member_begins_once():
    begun = []
    crew = Crew(lambda task: len(begun), died, 1, begin=lambda: begun.append(1))
    assert list(crew.each([1, 2, 3])) == [1, 1, 1] and not begun


@pytest.mark.parametrize("tasks", [[], ["a"]])
def test_fewer_tasks_than_members(tasks):
    assert len(list(Crew(work, died, 4).each(tasks))) == len(tasks)
