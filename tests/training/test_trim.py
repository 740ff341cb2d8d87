"""Trimmed source: still the same program, without what the model must not parrot; excerpts that stand alone."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = '''"""Shapes."""
import math


class NoShape(Exception):
    """Raised for what has no area.

    Never for a circle.
    """


class Circle:
    """A circle."""

    unit = 1
    """Of length."""

    def area(self, r: float = 1.0) -> float:
        """Area of a circle."""

        # one
        # two
        # three
        return math.pi * r * r  # exact


def total(shapes: list[Circle], *, start: float = 0) -> float:
    """Sum the areas of all shapes."""
    for shape in shapes:
        area = shape.area()
        start += area
    # ready
    return start
'''


@pytest.fixture
def trim() -> ModuleType:
    """The script's module, set to keep nothing that it may drop."""
    spec = importlib.util.spec_from_file_location("training_trim", ROOT / "training" / "trim.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.KEPT_DOCSTRINGS = module.KEPT_MODULE_DOCSTRINGS = 0
    module.ASKED_FOR = module.UNTYPED = 1
    return module


def bare(text: str) -> str:
    """The program's tree without its strings that stand alone."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if body := getattr(node, "body", None):
            kept = [item for item in body if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))]
            node.body = kept or ([] if isinstance(node, ast.Module) else [ast.Pass()])
    return ast.dump(tree)


def test_trimming_drops_docstrings_and_long_comments_alone(trim):
    text = trim.trim(SOURCE, ast.parse(SOURCE), Random(0))
    assert '"""' not in text and "# two" not in text
    assert "# exact" in text and "# ready" in text
    assert bare(text) == bare(SOURCE)
    assert "class NoShape(Exception):\n    pass\n\n\nclass Circle:\n    unit = 1\n\n    def area" in text


def test_trimming_keeps_short_docstrings_when_told(trim):
    trim.KEPT_DOCSTRINGS = trim.KEPT_MODULE_DOCSTRINGS = 1
    text = trim.trim(SOURCE, ast.parse(SOURCE), Random(0))
    assert '"""Area of a circle."""' in text and '"""Shapes."""' in text and '"""Of length."""' not in text


def test_long_literals_go(trim):
    source = "TABLE = [\n" + "    1,\n" * 40 + "]\nx = 1\n"
    assert trim.trim(source, ast.parse(source), Random(0)) == "TABLE = None\nx = 1\n"


def test_excerpts_are_the_definitions_and_a_loop(trim):
    tree = ast.parse(SOURCE)
    texts = list(trim.excerpts(tree, trim.trim(SOURCE, tree, Random(0)), Random(0)))
    assert [text.split("\n")[0] for text in texts] == [
        "class Circle:",
        '"""Sum the areas of all shapes."""',
        "for shape in shapes:",
    ]
    assert "def area(self, r=1.0):" in texts[0]
    assert '"""\n\n\ndef total(shapes, *, start=0):\n' in texts[1]
    assert all(ast.parse(text) for text in texts)
