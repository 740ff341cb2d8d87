"""What all tests share: helper modules of sibling folders, and a cache folder that is not the user's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Cases of the operators and their compiled runs serve the tests of designs, lowering and run time too.
sys.path[:0] = [str(Path(__file__).parent / folder) for folder in ("operators", "emit", "design", "runtime")]


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory):
    """Kernels of this run are compiled by this run."""
    before = os.environ.get("TILEWRIGHT_CACHE_DIR")
    os.environ["TILEWRIGHT_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["TILEWRIGHT_CACHE_DIR"]
    else:
        os.environ["TILEWRIGHT_CACHE_DIR"] = before
