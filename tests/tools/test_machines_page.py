"""The page of the machines: what it says is what its command would write today."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "machines.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tables():
    """tools/machines_tables.py, with the module beside it that it imports."""
    made = {}
    for name in ("machines_figures", "machines_tables"):
        spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
        made[name] = importlib.util.module_from_spec(spec)
        sys.modules[name] = made[name]
        spec.loader.exec_module(made[name])
    yield made["machines_tables"]
    for name in made:
        del sys.modules[name]


@pytest.mark.parametrize("table", ["matmul", "ways", "grounds", "stops", "exact", "applications"])
def test_every_row_of_the_page_is_what_the_code_says(tables, table):
    rows = list(getattr(tables, table)())
    assert rows
    missing = [row for row in rows if row not in PAGE.splitlines()]
    assert not missing, "run python tools/machines_page.py:\n" + "\n".join(missing)


def test_figures_are_there_and_small(tables):
    assert PAGE.startswith("# One matmul on five machines")
    for line in PAGE.splitlines():
        if line.startswith("!["):
            picture = ROOT / "docs" / line.partition("](")[2].rstrip(")")
            assert 2_000 < len(picture.read_bytes()) < 60_000
