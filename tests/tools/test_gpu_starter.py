"""The shipped starter book of a GPU is what the tool makes of the committed results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import gpu_starter

SHIPPED = ROOT / "src/tilewright/design/book/starter/h200.json"


def test_what_ships_is_made_of_the_newest_results():
    newest = max((ROOT / "benchmarks/results").glob("gpu-h200-*.json"))
    made = json.loads(gpu_starter.text_of(json.loads(newest.read_text())))
    shipped = json.loads(SHIPPED.read_text())
    assert made["records"] == shipped["records"], "run python tools/gpu_starter.py (see its head)"
    assert made["machines"] == shipped["machines"] and made["programs"] == shipped["programs"]


def test_only_designs_that_paid_are_kept():
    for record in json.loads(SHIPPED.read_text())["records"]:
        assert record["default_seconds"] > record["seconds"] * (1 + record["noise"])
