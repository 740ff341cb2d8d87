"""A crew: processes that take tasks one after the other, any of which may take its process with it."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Spent(Exception):
    """Raised by work whose process is of no further use, with the result of its task."""

    def __init__(self, result: object) -> None:
        super().__init__("the process is spent")
        self.result = result


@dataclass
class _Member:
    process: Any
    task: int


@dataclass(frozen=True)
class Crew(Generic[T, R]):
    """`members` processes, each of which calls `begin` and then does `work` on one task after the other.

    They are forked: what this process has imported they have too, and it must not have touched a GPU. `died` makes
    the result of a task whose process ended without one, from the task and what is known of the end.
    """

    work: Callable[[T], R]
    died: Callable[[T, str], R]
    members: int
    begin: Callable[[], object] = lambda: None

    def each(self, tasks: Sequence[T]) -> Iterator[R]:
        """A result for each task, in whatever order they come."""
        waiting, crew = deque(range(len(tasks))), dict[Connection, _Member]()
        try:
            while waiting or crew:
                while waiting and len(crew) < self.members:
                    link, member = self._member(tasks, waiting.popleft())
                    crew[link] = member
                for ready in wait(list(crew)):
                    assert isinstance(ready, Connection)
                    yield self._told(tasks, ready, crew, waiting)
        finally:
            for member in crew.values():
                member.process.terminate()

    def _told(self, tasks: Sequence[T], link: Connection, crew: dict[Connection, _Member], waiting: deque[int]) -> R:
        """What a member says, who then gets its next task or leaves."""
        member = crew[link]
        try:
            result, spent = link.recv()
        except (EOFError, OSError):
            member.process.join()
            result, spent = self.died(tasks[member.task], f"its process ended, status {member.process.exitcode}"), True
        if waiting and not spent:
            member.task = waiting.popleft()
            link.send(member.task)
        else:
            del crew[link]
            link.close()
        answer: R = result
        return answer

    def _member(self, tasks: Sequence[T], first: int) -> tuple[Connection, _Member]:
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        process = context.Process(target=self._serve, args=(tasks, there), daemon=True)
        process.start()
        there.close()  # so that the end of the process is the end of the link
        here.send(first)
        return here, _Member(process, first)

    def _serve(self, tasks: Sequence[T], link: Connection) -> None:
        with suppress(EOFError, OSError):  # nobody is there any more
            self.begin()
            while True:
                task = tasks[link.recv()]
                try:
                    link.send((self.work(task), False))
                except Spent as spent:
                    link.send((spent.result, True))
                    return


__all__ = ["Crew", "Spent"]
