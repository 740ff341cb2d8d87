"""Cut Python source down to code: what the model is to write, without what it could only parrot.

Most docstrings, long comments and long literals go; a share of the short docstrings stays, so that the model can still
write one. A file also yields excerpts, each a text of its own: its functions and classes, and some of its loops. They
teach that a text may begin with `def name(arguments):`, and that it ends where the function does.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator
from random import Random

KEPT_DOCSTRINGS = 0.15
KEPT_MODULE_DOCSTRINGS = 0.5
UNTYPED = 0.5  # share of the definitions whose signatures lose their annotations
ASKED_FOR = 0.3  # share of the documented functions that follow their summary, as an answer follows a question
DOCSTRING_LINES = 5
COMMENT_LINES = 2
LITERAL_LINES = 30
FUNCTION_LINES = range(3, 81)
CLASS_LINES = range(5, 161)
LOOP_LINES = range(3, 25)
LOOPS_PER_FILE = 6

Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = Function | ast.ClassDef | ast.Module
LEAVES = (ast.Return, ast.Yield, ast.YieldFrom, ast.Await)


def parse(text: str) -> ast.Module | None:
    """The syntax tree, or None for what is no Python of this version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None


def span(node: ast.stmt) -> range:
    """The line numbers of a statement, from 1, its decorators included."""
    decorators = getattr(node, "decorator_list", [])
    return range(min([node.lineno, *(item.lineno for item in decorators)]), (node.end_lineno or node.lineno) + 1)


def is_constant(node: ast.stmt, kinds: type = object) -> bool:
    """Whether a statement is a bare literal, as a docstring is and an ellipsis."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, kinds)


# -------------------------------------------------------------------------------------------- trim
def trim(text: str, tree: ast.Module, random: Random) -> str:
    """`text` without most docstrings, without comments over two lines, without literals over thirty lines."""
    lines = text.split("\n")
    dropped: set[int] = set()
    quoted: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, Scope):
            drop_docstrings(node, lines, dropped, random)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and len(span(node)) > LITERAL_LINES:
            # Its scope may hold nothing else; a name in the place of the value is still Python.
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            lines[node.lineno - 1] = " " * node.col_offset + f"{ast.unparse(target)} = None"
            dropped.update(span(node)[1:])
        elif isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno != node.lineno:
            quoted.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    drop_comments(lines, dropped, quoted)
    kept = "\n".join(line for number, line in enumerate(lines, 1) if number not in dropped)
    return re.sub(r"\n{4,}", "\n\n\n", kept).strip("\n") + "\n"


def drop_docstrings(scope: Scope, lines: list[str], dropped: set[int], random: Random) -> None:
    """Mark the bare strings of a scope: all but some short docstrings. A scope of nothing else becomes `pass`."""
    texts = [node for node in scope.body if is_constant(node, str)]
    share = KEPT_MODULE_DOCSTRINGS if isinstance(scope, ast.Module) else KEPT_DOCSTRINGS
    if texts and texts[0] is scope.body[0] and len(span(texts[0])) <= DOCSTRING_LINES and random.random() < share:
        texts = texts[1:]
    empty = len(texts) == len(scope.body) and not isinstance(scope, ast.Module)
    for node in texts:
        first, last = node.lineno, node.end_lineno or node.lineno
        alone = not lines[first - 1][: node.col_offset].strip() and not lines[last - 1][node.end_col_offset :].strip()
        if not alone:
            continue
        if empty and node is texts[0]:
            lines[first - 1] = " " * node.col_offset + "pass"
            first += 1
        leads = node is scope.body[0] and not empty and not isinstance(scope, ast.Module)
        while leads and not lines[last]:
            last += 1
        dropped.update(range(first, last + 1))


def drop_comments(lines: list[str], dropped: set[int], quoted: set[int]) -> None:
    """Mark runs of more than two lines that are comments alone."""
    run: list[int] = []
    for number, line in enumerate([*lines, ""], 1):
        if line.lstrip().startswith("#") and number not in quoted:
            run.append(number)
            continue
        if len(run) > COMMENT_LINES:
            dropped.update(run)
        run = []


# ---------------------------------------------------------------------------------------- excerpts
def summary(node: ast.stmt) -> str | None:
    """The first line of a function's docstring, when it says something."""
    text = ast.get_docstring(node) if isinstance(node, Function) else None
    line = text.strip().split("\n")[0].strip() if text else ""
    return line if 12 <= len(line) <= 100 and '"' not in line and "\\" not in line else None


def is_hollow(node: Function | ast.ClassDef) -> bool:
    """Whether a definition does nothing: an overload, an abstract method, a test."""
    idle = [isinstance(item, ast.Pass | ast.Raise) or is_constant(item) for item in node.body]
    return all(idle) or node.name.lower().startswith("test")


def excerpts(original: ast.Module, trimmed: str, random: Random) -> Iterator[str]:
    """Functions, classes and loops of a trimmed file, some functions behind their summary as a module's docstring."""
    tree = parse(trimmed)
    if tree is None:
        return
    lines = trimmed.split("\n")
    asked = {node.name: line for node in original.body if isinstance(node, Function) and (line := summary(node))}
    for node in tree.body:
        wanted = CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES
        if not isinstance(node, Function | ast.ClassDef) or len(span(node)) not in wanted or is_hollow(node):
            continue
        text = "\n".join(lines[span(node)[0] - 1 : span(node)[-1]]) + "\n"
        if random.random() < UNTYPED:
            text = untyped(text)
        if node.name in asked and not ast.get_docstring(node) and random.random() < ASKED_FOR:
            text = f'"""{asked[node.name]}"""\n\n\n{text}'
        yield text
    yield from loops(tree, lines, random)


def untyped(text: str) -> str:
    """`text` with its functions' signatures bare of the annotations that stand on one line with what they annotate."""
    lines, cuts = text.split("\n"), []
    for node in ast.walk(parse(text) or ast.Module([], [])):
        if isinstance(node, ast.arg) and (kind := node.annotation) and node.lineno == node.end_lineno:
            cuts.append((node.lineno, node.col_offset + len(node.arg), kind.end_col_offset or 0))
        elif isinstance(node, Function) and (kind := node.returns) and kind.lineno == kind.end_lineno:
            arrow = lines[kind.lineno - 1].rfind(" ->", 0, kind.col_offset)
            if arrow >= 0:
                cuts.append((kind.lineno, arrow, kind.end_col_offset or 0))
    for number, first, last in sorted(cuts, reverse=True):
        line = lines[number - 1]
        lines[number - 1] = line[:first] + re.sub("^ = ", "=", line[last:])
    return "\n".join(lines) if parse("\n".join(lines)) else text


def loops(tree: ast.Module, lines: list[str], random: Random) -> Iterator[str]:
    """Some loops of a file, each moved to the left edge."""
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.For | ast.While)
        and len(span(node)) in LOOP_LINES
        and not any(isinstance(item, LEAVES) or getattr(item, "id", "") == "self" for item in ast.walk(node))
    ]
    for node in random.sample(found, min(LOOPS_PER_FILE, len(found))):
        yield textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno])) + "\n"
