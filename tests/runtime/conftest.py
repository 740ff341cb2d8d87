"""Fixtures of the run time's tests."""

from __future__ import annotations

import pytest

from tilewright.runtime import dispatch, rebind
from tilewright.runtime.table import Table


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A cache folder, and so a book, and a table of this test's own; calls are bound anew."""
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TILEWRIGHT_THREADS", "1")
    for known in ("_listed", "_kernels", "_by_design"):
        monkeypatch.setattr(dispatch, known, {})
    monkeypatch.setattr(dispatch, "TABLE", Table())
    rebind.forget()
    return dispatch.TABLE
