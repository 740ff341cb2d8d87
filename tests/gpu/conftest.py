"""Tests that need an NVIDIA GPU: all of this folder is skipped without one, and says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tilewright.errors import MachineError
from tilewright.machines import nvidia

HERE = Path(__file__).parent


def _why_not() -> str | None:
    try:
        import torch

        return None if nvidia.devices() and torch.cuda.is_available() else "torch sees no GPU"
    except MachineError as error:
        return str(error)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mine = [item for item in items if HERE in item.path.parents]
    if mine and (reason := _why_not()) is not None:
        for item in mine:
            item.add_marker(pytest.mark.skip(reason=reason))
    items[:] = [item for item in items if HERE not in item.path.parents] + _dealt(mine)


LONG = ("failing_trials", "newcomer", "drawn_products", "swaps", "book")
"""Files whose tests take many seconds each, with processes of their own."""


def _dealt(items: list[pytest.Item]) -> list[pytest.Item]:
    """Long tests come first in the share of each process (a run of tests one after the other), so that none ends it."""
    shares = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first = [item for name in LONG for item in items if name in item.path.name]
    taken = set(first)
    rest, dealt = [item for item in items if item not in taken], []
    for n in range(shares):
        size = (len(items) - len(dealt)) // (shares - n)
        dealt += (mine := first[n::shares])
        dealt += rest[: size - len(mine)]
        del rest[: size - len(mine)]
    return dealt + rest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Processes that have nothing left take tests from others: some tests take a thousand times as long as others."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(autouse=True)
def one_failure_stays_one() -> Iterator[None]:
    """A test that fails while it captures a graph would break every later one that draws a random number."""
    yield
    from gpu_graphs import mend

    mend()
