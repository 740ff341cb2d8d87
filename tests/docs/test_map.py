"""docs/MAP.md has a line for each module and folder of the package, and for nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "tilewright"
_LINE = re.compile(r"^\s*- `([\w./]+)`: (.+)$", re.MULTILINE)


def lines() -> dict[str, str]:
    """Path (relative to the package) -> what the map says of it."""
    return dict(_LINE.findall((ROOT / "docs" / "MAP.md").read_text(encoding="utf-8")))


def modules() -> list[str]:
    """Every module, and every folder that holds modules."""
    files = [p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py"]
    folders = {f"{p.parent.relative_to(PACKAGE)}/" for p in PACKAGE.rglob("*/__init__.py")}
    return sorted([*(str(p.relative_to(PACKAGE)) for p in files), *folders])


def wanted(path: str) -> str:
    """The line to add for a module: the first sentence of what it says of itself."""
    file = PACKAGE / path / "__init__.py" if path.endswith("/") else PACKAGE / path
    says = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    return f"- `{path}`: {' '.join(says.split())}"


def test_every_module_is_on_the_map():
    missing = [wanted(m) for m in modules() if m not in lines()]
    assert not missing, "add to docs/MAP.md, in your words:\n" + "\n".join(missing)


def test_the_map_shows_nothing_else():
    gone = [path for path in lines() if not (PACKAGE / path).exists()]
    assert not gone, f"remove from docs/MAP.md: {', '.join(gone)}"


def test_the_map_follows_the_pipeline():
    text = (ROOT / "docs" / "MAP.md").read_text(encoding="utf-8")
    order = [
        "language/",
        "operators/",
        "machines/",
        "design/",
        "lower/",
        "emit/",
        "build/",
        "runtime/",
        "ops/",
        "models/",
        "engine/",
    ]
    places = [text.index(f"- `{folder}`") for folder in order]
    assert places == sorted(places)
