"""Tests that need an NVIDIA GPU: all of this folder is skipped without one, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
    # Trials that hang take half a minute each: begun first, they end beside the others.
    items.sort(key=lambda item: HERE in item.path.parents and "trials" not in item.path.name)


@pytest.fixture(autouse=True)
def one_failure_stays_one() -> Iterator[None]:
    """A test that fails while it captures a graph would break every later one that draws a random number."""
    yield
    from gpu_graphs import mend

    mend()
