"""LLVM IR as text: SSA names, blocks, and the hoisting of what does not change inside a loop.

The IR pass manager is not run (it costs six times the code generation and gains 2-3%), so the text
must be good as it is written: address arithmetic goes in front of the outermost loop that leaves its
operands alone, and equal expressions of one place are written once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Region:
    """A stretch of code entered once from the region outside it: a function, a loop or a branch."""

    depth: int
    preheader: list[str]  # lines placed where the region outside still runs, just before this one is entered
    known: dict[str, str] = field(default_factory=dict)  # expression -> name, for lines of `preheader`
    made: dict[str, list[str]] = field(default_factory=dict)  # what `once` made of values known there


class Builder:
    """Writes one function. `emit` appends where the writer stands; `hoist` as far out as the operands allow."""

    def __init__(self, declarations: set[str]) -> None:
        self.declarations = declarations
        self.lines: list[str | list[str]] = []
        self.block = "entry"
        self.held: object = None  # what the last instructions left in registers that are named, not allocated
        self._count = 0
        self._labels = 0
        self._depth: dict[str, int] = {}
        self._regions: list[Region] = [Region(0, [])]
        self._local: list[dict[str, str]] = [{}]
        self._made: list[dict[str, list[str]]] = [{}]

    # ------------------------------------------------------------------------------------ lines
    def fresh(self) -> str:
        """A new SSA name."""
        self._count += 1
        return f"%v{self._count}"

    def emit(self, rhs: str) -> str:
        """Append `%n = rhs` here and return `%n`."""
        name = self.fresh()
        self.lines.append(f"  {name} = {rhs}")
        self._depth[name] = self._regions[-1].depth
        return name

    def do(self, text: str) -> None:
        """Append an instruction without result."""
        self.lines.append("  " + text)

    def depth(self, operand: str) -> int:
        """How many regions deep `operand` is defined; literals and arguments are at 0."""
        return self._depth.get(operand, 0)

    def declare(self, declaration: str) -> None:
        """Declare an intrinsic or external function of the module, once."""
        self.declarations.add(declaration)

    def hoist(self, rhs: str, *operands: str) -> str:
        """Like `emit` for a pure expression of `operands`, written once and as far out as they allow."""
        depth = max((self._depth.get(o, 0) for o in operands), default=0)
        if depth >= self._regions[-1].depth:
            known = self._local[-1]
            if rhs not in known:
                known[rhs] = self.emit(rhs)
            return known[rhs]
        region = self._regions[depth + 1]
        if rhs not in region.known:
            name = self.fresh()
            region.preheader.append(f"  {name} = {rhs}")
            self._depth[name] = depth
            region.known[rhs] = name
        return region.known[rhs]

    def once(self, key: str, make: Callable[[], list[str]], *operands: str) -> list[str]:
        """What `make` gives: hoisted expressions of `operands`, made once for as long as all of them are known."""
        depth = max((self._depth.get(o, 0) for o in operands), default=0)
        made = self._made[-1] if depth >= self._regions[-1].depth else self._regions[depth + 1].made
        if key not in made:
            made[key] = make()
        return made[key]

    # ----------------------------------------------------------------------------------- blocks
    def label(self, hint: str) -> str:
        """A new block label."""
        self._labels += 1
        return f"{hint}{self._labels}"

    def start(self, label: str) -> None:
        """Begin the block `label`; the block before must have ended."""
        self.lines.append(f"{label}:")
        self.block = label
        self._local[-1] = {}
        self._made[-1] = {}

    def phi(self, ty: str) -> tuple[str, list[str]]:
        """A phi whose incoming edges are filled in later: (name, the line to fill)."""
        name = self.fresh()
        line: list[str] = []
        self.lines.append(line)
        self._depth[name] = self._regions[-1].depth
        line.append(f"  {name} = phi {ty} ")
        return name, line

    @staticmethod
    def fill(line: list[str], edges: list[tuple[str, str]]) -> None:
        """Complete a phi with (value, block) edges."""
        line[0] += ", ".join(f"[ {value}, %{block} ]" for value, block in edges)

    def enter(self) -> None:
        """Open a region here: what is hoisted out of it lands just before this point."""
        preheader: list[str] = []
        self.lines.append(preheader)
        self._regions.append(Region(self._regions[-1].depth + 1, preheader))
        self._local.append({})
        self._made.append({})

    def surface(self, names: list[str]) -> None:
        """Values of a region just left that are visible outside it: the phis of a loop header."""
        for name in names:
            if name in self._depth:
                self._depth[name] = self._regions[-1].depth

    def leave(self) -> None:
        """Close the region entered last."""
        self._regions.pop()
        self._local.pop()
        self._made.pop()

    def text(self) -> str:
        """All lines written so far."""
        return "\n".join(line if isinstance(line, str) else "\n".join(line) for line in self.lines if line)


# ------------------------------------------------------------------------------------- integer arithmetic
def is_const(x: str) -> bool:
    """Whether an i64 operand is a literal."""
    return x.lstrip("-").isdigit()


def add(b: Builder, x: str, y: str) -> str:
    """x + y (i64), folded where known."""
    if is_const(x) and is_const(y):
        return str(int(x) + int(y))
    if x == "0":
        return y
    if y == "0":
        return x
    return b.hoist(f"add nsw i64 {x}, {y}", x, y)


def sub(b: Builder, x: str, y: str) -> str:
    """x - y (i64), folded where known."""
    if is_const(x) and is_const(y):
        return str(int(x) - int(y))
    return x if y == "0" else b.hoist(f"sub nsw i64 {x}, {y}", x, y)


def mul(b: Builder, x: str, y: str) -> str:
    """x * y (i64), folded where known."""
    if is_const(x) and is_const(y):
        return str(int(x) * int(y))
    if "0" in (x, y):
        return "0"
    if x == "1":
        return y
    if y == "1":
        return x
    return b.hoist(f"mul nsw i64 {x}, {y}", x, y)


def minimum(b: Builder, x: str, y: str) -> str:
    """min(x, y) (i64, signed), folded where known."""
    if is_const(x) and is_const(y):
        return str(min(int(x), int(y)))
    if x == y:
        return x
    b.declare("declare i64 @llvm.smin.i64(i64, i64)")
    return b.hoist(f"call i64 @llvm.smin.i64(i64 {x}, i64 {y})", x, y)


def maximum(b: Builder, x: str, y: str) -> str:
    """max(x, y) (i64, signed), folded where known."""
    if is_const(x) and is_const(y):
        return str(max(int(x), int(y)))
    if x == y:
        return x
    b.declare("declare i64 @llvm.smax.i64(i64, i64)")
    return b.hoist(f"call i64 @llvm.smax.i64(i64 {x}, i64 {y})", x, y)


def udiv(b: Builder, x: str, y: str) -> str:
    """x // y for non-negative i64, folded where known."""
    if is_const(x) and is_const(y):
        return str(int(x) // int(y))
    return x if y == "1" else b.hoist(f"udiv i64 {x}, {y}", x, y)


def ceil_div(b: Builder, x: str, y: str) -> str:
    """ceil(x / y) for non-negative i64, folded where known."""
    return udiv(b, add(b, x, sub(b, y, "1")), y)


def compare(b: Builder, predicate: str, x: str, y: str) -> str:
    """i1 of an i64 comparison, folded to true/false where known."""
    if is_const(x) and is_const(y):
        known = {"slt": int(x) < int(y), "sle": int(x) <= int(y), "sge": int(x) >= int(y), "eq": x == y}[predicate]
        return "true" if known else "false"
    return b.hoist(f"icmp {predicate} i64 {x}, {y}", x, y)
