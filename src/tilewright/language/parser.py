"""Text to program: reads the grammar of `ir`. Line ends mean nothing; `#` starts a comment."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from tilewright.errors import ParseError
from tilewright.language import ir
from tilewright.language.dtypes import DTYPES, DType

T = TypeVar("T")

_TOKEN = re.compile(
    r"""(?P<skip>(?:\s+|\#[^\n]*)+)
      | (?P<number>-?(?:inf|nan)\b|-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<name>[^\W\d]\w*)
      | (?P<sign>:=|<-|[{}()\[\],:=@.])""",
    re.VERBOSE,
)
_NUMBERS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan, "-nan": math.nan}


@dataclass(frozen=True)
class Token:
    """A word of the text: its kind (number, string, name, sign, end), and where it starts."""

    kind: str
    text: str
    at: int


def parse(text: str) -> ir.Kernel:
    """The kernel that `text` describes; ParseError with line and column where it is not in the grammar."""
    reader = _Reader(text)
    kernel = reader.kernel()
    reader.end()
    return kernel


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self._scan()
        self.next = 0

    # --------------------------------------------------------------------------------------- tokens

    def _scan(self) -> list[Token]:
        tokens, at = [], 0
        while at < len(self.text):
            match = _TOKEN.match(self.text, at)
            if match is None:
                self.fail(f"unexpected character {self.text[at]!r}", at)
            if match.lastgroup != "skip":
                tokens.append(Token(str(match.lastgroup), match[0], at))
            at = match.end()
        return [*tokens, Token("end", "the end of the text", at)]

    def fail(self, message: str, at: int) -> NoReturn:
        line, column = self.text.count("\n", 0, at) + 1, at - self.text.rfind("\n", 0, at)
        source = self.text.splitlines()[line - 1 : line]
        raise ParseError(f"line {line}, column {column}: {message}" + "".join(f"\n    {s.strip()}" for s in source))

    def peek(self, ahead: int = 0) -> Token:
        return self.tokens[min(self.next + ahead, len(self.tokens) - 1)]

    def wanted(self, what: str) -> NoReturn:
        self.fail(f"expected {what}, found {self.peek().text}", self.peek().at)

    def take(self, kind: str, what: str) -> str:
        if self.peek().kind != kind:
            self.wanted(what)
        self.next += 1
        return self.tokens[self.next - 1].text

    def accept(self, text: str) -> bool:
        """Take the word or sign `text` if it comes next."""
        found = self.peek().text == text and self.peek().kind in ("name", "sign")
        self.next += found
        return found

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.wanted(repr(text))

    def end(self) -> None:
        if self.peek().kind != "end":
            self.wanted("the end of the text")

    def name(self, what: str = "a name") -> str:
        return self.take("name", what)

    def word(self, what: str, allowed: tuple[str, ...] | dict[str, int]) -> str:
        at = self.peek().at
        word = self.name(what)
        if word not in allowed:
            self.fail(f"{word!r} is not {what}; use one of {', '.join(allowed)}", at)
        return word

    def integer(self) -> int:
        at = self.peek().at
        value = self.number()
        if not isinstance(value, int):
            self.fail(f"expected an integer, found {value}", at)
        return value

    def number(self) -> int | float:
        text = self.take("number", "a number")
        if text in _NUMBERS:
            return _NUMBERS[text]
        return int(text) if text.lstrip("-").isdigit() else float(text)

    def atom(self) -> ir.Atom:
        return self.number() if self.peek().kind == "number" else self.name("a name or a number")

    def index(self) -> ir.Index:
        return self.integer() if self.peek().kind == "number" else self.name("an index")

    def items(self, item: Callable[[], T], close: str) -> tuple[T, ...]:
        """Items separated by commas, up to and including the sign `close`."""
        found: list[T] = []
        while not self.accept(close):
            if found:
                self.expect(",")
            found.append(item())
        return tuple(found)

    # --------------------------------------------------------------------------------------- kernel

    def kernel(self) -> ir.Kernel:
        self.expect("kernel")
        name = self.name()
        self.expect("(")
        params = self.items(self.param, ")")
        notes = self.notes()
        return ir.Kernel(name, params, self.block(), notes)

    def param(self) -> ir.Param:
        name = self.name("a parameter")
        self.expect(":")
        dtype = self.dtype()
        return ir.Param(name, dtype, self.items(self.index, "]") if self.accept("[") else None)

    def dtype(self) -> DType:
        return DTYPES[self.word("a dtype", tuple(DTYPES))]

    def block(self) -> tuple[ir.Stmt, ...]:
        self.expect("{")
        stmts: list[ir.Stmt] = []
        while not self.accept("}"):
            stmts.append(self.stmt())
        return tuple(stmts)

    # ----------------------------------------------------------------------------------- statements

    def stmt(self) -> ir.Stmt:
        # A value may be called like a statement; the sign after it tells.
        if self.peek().kind == "name" and self.peek(1).text in ("=", ":="):
            return self.let_or_assign()
        at = self.peek().at
        word = self.name("a statement or '}'")
        read = {"store": self.store, "for": self.loop, "when": self.when, "alloc": self.alloc,
                "copy": self.copy, "sync": self.sync, "role": self.role}.get(word)  # fmt: skip
        if read is None:
            self.fail(f"{word!r} does not start a statement", at)
        return read()

    def let_or_assign(self) -> ir.Stmt:
        name = self.name()
        if self.accept(":="):
            return ir.Assign(name, self.name())
        self.expect("=")
        expr = self.expr()
        self.expect(":")
        return ir.Let(name, self.type(), expr, self.notes())

    def store(self) -> ir.Stmt:
        ref = self.ref()
        self.expect("=")
        return ir.Store(ref, self.name(), self.notes())

    def loop(self) -> ir.Stmt:
        axes = [self.axis()]
        while self.accept(","):
            axes.append(self.axis())
        parallel = self.accept("parallel")
        notes = self.notes()
        return ir.Loop(tuple(axes), self.block(), parallel, notes)

    def axis(self) -> ir.Axis:
        each = self.peek().text == "each" and self.peek(1).text != "in"
        self.next += each
        name = self.name("an axis")
        self.expect("in")
        over = self.name("a dimension or an axis")
        start = self.bound("from")
        stop = self.bound("to")
        step = self.integer() if self.accept("step") else None
        apart = self.integer() if self.accept("apart") else 1
        return ir.Axis(name, over, step, start, stop, each, apart)

    def bound(self, word: str) -> str | int | None:
        return self.index() if self.accept(word) else None

    def when(self) -> ir.Stmt:
        cond = self.word("a condition", ir.CONDITIONS)
        self.expect("(")
        axis = self.name("an axis")
        self.expect(")")
        return ir.When(cond, axis, self.block())

    def alloc(self) -> ir.Stmt:
        name = self.name("a buffer")
        self.expect(":")
        dtype = self.dtype()
        self.expect("[")
        return ir.Alloc(name, dtype, self.items(self.index, "]"), self.notes())

    def copy(self) -> ir.Stmt:
        dst = self.ref()
        self.expect("<-")
        return ir.Copy(dst, self.ref(), self.notes())

    def sync(self) -> ir.Stmt:
        return ir.Sync(self.name("a barrier"), self.name("an action"), self.notes())

    def role(self) -> ir.Stmt:
        name = self.name("a role")
        notes = self.notes()
        return ir.Role(name, self.block(), notes)

    # ---------------------------------------------------------------------------------- expressions

    def expr(self) -> ir.Expr:
        at = self.peek().at
        match op := self.name("an expression"):
            case "full":
                return ir.Full(self.atom())
            case "coord":
                return ir.Coord(self.name("an axis"))
            case "load":
                return ir.Load(self.ref())
            case "permute":
                return ir.Permute(self.name())
            case "reduce":
                how = self.word("a reduction", ir.REDUCTIONS)
                return ir.Reduce(how, self.name(), self.over())
            case "dot":
                a, b, axis = self.name(), self.name(), self.over()
                return ir.Dot(a, b, axis, self.word("a precision", tuple(ir.PRECISIONS)) if self.accept("as") else "")
        if op not in ir.MAPS:
            self.fail(f"{op!r} is not an operator", at)
        return ir.Map(op, tuple(self.name("an operand") for _ in range(ir.MAPS[op])))

    def over(self) -> str:
        self.expect("over")
        return self.name("an axis")

    def ref(self) -> ir.Ref:
        buffer = self.name("a tensor or buffer")
        self.expect("[")
        return ir.Ref(buffer, self.items(self.index, "]"))

    def type(self) -> ir.TileType:
        dtype = self.dtype()
        self.expect("[")
        return ir.TileType(dtype, self.items(self.name, "]"))

    # ---------------------------------------------------------------------------------------- notes

    def notes(self) -> ir.Notes:
        found = []
        while self.accept("@"):
            key = self.dotted("a note")
            self.expect("=")
            found.append((key, self.note()))
        return tuple(found)

    def note(self) -> ir.Note:
        return self.items(self.note_item, ")") if self.accept("(") else self.note_item()

    def note_item(self) -> str | int | bool:
        token = self.peek()
        if token.kind == "number":
            return self.integer()
        if token.kind == "string":
            self.next += 1
            return self.quoted(token)
        word = self.dotted("the value of a note")
        return word == "true" if word in ("true", "false") else word

    def quoted(self, token: Token) -> str:
        try:
            return str(json.loads(token.text))
        except json.JSONDecodeError as error:
            self.fail(f"{token.text} is not a string: {error.msg}", token.at)

    def dotted(self, what: str) -> str:
        """A name with dots in it, as one word."""
        words = [self.name(what)]
        while self.accept("."):
            words.append(self.name(what))
        return ".".join(words)
