"""Run what the documents show: `run_docs.py run README.md docs/TOUR.md`, `run_docs.py block README.md Start 2`.

`run` executes the Python blocks of each document, joined in their order, in a folder of its own; a block that
raises fails the run, and the lines of its traceback are those of the document. `block` prints the n-th shell block of a
section, counted from 1.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SHELL = ("sh", "bash", "shell")
_FENCE = re.compile(r"^(```+)(\w*).*?\n(.*?)^\1\s*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the document on which the text starts."""

    language: str
    text: str
    line: int


def blocks(document: str) -> list[Block]:
    """Every fenced block of a Markdown document, in order."""
    return [Block(m[2], m[3], document.count("\n", 0, m.start(3)) + 1) for m in _FENCE.finditer(document)]


def section(document: str, title: str) -> str:
    """The text under the heading `## title`, up to the next heading of that level; SystemExit if there is none."""
    found = re.search(rf"^## {re.escape(title)}\s*$(.*?)(?=^## |\Z)", document, re.DOTALL | re.MULTILINE)
    if not found:
        raise SystemExit(f"no section '## {title}'")
    return found[1]


def shell_block(path: Path, title: str, number: int) -> str:
    """The `number`-th shell block of a section; SystemExit if it has fewer."""
    found = [b.text for b in blocks(section(path.read_text(encoding="utf-8"), title)) if b.language in SHELL]
    if not 1 <= number <= len(found):
        raise SystemExit(f"{path}: '## {title}' has {len(found)} shell blocks, not {number}")
    return found[number - 1]


def python_program(path: Path) -> str:
    """All Python blocks of a document as one program whose line numbers are those of the document."""
    lines: list[str] = []
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.language == "python":
            lines += [""] * (block.line - 1 - len(lines)) + block.text.splitlines()
    return "\n".join(lines) + "\n"


def run(path: Path) -> int:
    """Execute the Python blocks of `path` in a folder of its own; the exit status of the interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / f"{path.stem}.py"
        script.write_text(python_program(path), encoding="utf-8")
        status = subprocess.run([sys.executable, script.name], cwd=folder, check=False).returncode
    print(f"{path}: {'ran' if status == 0 else f'failed; line numbers are those of {path}'}", flush=True)
    return status


def main(arguments: list[str]) -> int:
    """`run FILE...` or `block FILE SECTION NUMBER`."""
    match arguments:
        case ["run", *files] if files:
            return max([run(Path(file)) for file in files])
        case ["block", file, title, number] if number.isdigit():
            print(shell_block(Path(file), title, int(number)), end="")
            return 0
        case _:
            print(__doc__, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
