"""Processes that try designs, and the threads that ask them, kept from one search to the next."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tilewright.machines.cores import affinity
from tilewright.runtime.child import Child
from tilewright.runtime.inputs import Drawn
from tilewright.runtime.scratch import Scratch

MOST_BUILDERS = 8


class Crew(dict[int, Child]):
    """Processes that try designs on a GPU, by their numbers, kept from one search to the next; to be closed.

    The threads that ask them are kept too: Linux takes the end of the thread that started a process for its parent's.
    And so are operands that were drawn: slots of one layer differ in how many rows they have, not in their weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.threads = threads()
        self.scratch = Scratch("crew")
        self.drawn = Drawn()

    def close(self) -> None:
        """End them and remove their files."""
        for child in self.values():
            child.stop()
        self.clear()
        self.threads.shutdown(wait=False)
        self.scratch.remove()


def threads() -> ThreadPoolExecutor:
    """Threads that ask builders, one for each core up to MOST_BUILDERS."""
    return ThreadPoolExecutor(min(MOST_BUILDERS, len(affinity())))


__all__ = ["Crew", "threads"]
