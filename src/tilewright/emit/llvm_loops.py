"""Loops over tiles: full tiles in a counted loop, then the ragged rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tilewright.emit import llvm_builder as ll
from tilewright.emit.llvm_values import Context, Key, Tile, read, scalar_type, table, vector_type
from tilewright.language.ir import TileType

Step = Callable[[str], None]


@dataclass(frozen=True)
class Span:
    """The range of a loop: operands of its ends, and its length where known."""

    low: str
    high: str

    @property
    def length(self) -> int | None:
        if ll.is_const(self.low) and ll.is_const(self.high):
            return max(0, int(self.high) - int(self.low))
        return None


def spread_type(tile_type: TileType, lane: str | None, spread: int, cx: Context) -> str:
    """LLVM type of each part of a carried tile."""
    if spread:
        return f"<{spread} x {scalar_type(tile_type.dtype)}>" if spread > 1 else scalar_type(tile_type.dtype)
    return vector_type(tile_type.dtype, cx.width(lane))


@dataclass(frozen=True)
class _Carried:
    name: str
    type: TileType
    lane: str | None
    spread: int

    def keys(self, cx: Context) -> list[Key]:
        return list(cx.keys(self.type.axes, self.lane))

    def parts(self, cx: Context, tile: Tile) -> dict[Key, str]:
        """The parts of `tile` in this form."""
        if self.spread:
            return {k: tile.part(k) for k in self.keys(cx)}
        return {k: read(cx, tile, dict(zip(self.type.axes, k, strict=True)), self.lane) for k in self.keys(cx)}


class Carry:
    """The tiles that a loop or branch changes, and their phis."""

    def __init__(self, cx: Context, names: list[str]) -> None:
        self.cx = cx
        # What lies in registers of its own (AMX) is changed in place and needs no phi.
        self.items = [self._form(n) for n in names if cx.values[n].spread >= 0]

    def _form(self, name: str) -> _Carried:
        tile = self.cx.values[name]
        lane = None if tile.spread else self.cx.lane_of(tile.axes)
        return _Carried(name, tile.type, lane, tile.spread)

    def current(self) -> list[dict[Key, str]]:
        """Parts of every carried tile as they are now."""
        return [c.parts(self.cx, self.cx.values[c.name]) for c in self.items]

    def phis(self) -> list[dict[Key, tuple[str, list[str]]]]:
        """One phi per part; the carried names now stand for them."""
        result = []
        for c in self.items:
            ty = spread_type(c.type, c.lane, c.spread, self.cx)
            result.append({k: self.cx.b.phi(ty) for k in c.keys(self.cx)})
        for c, phis in zip(self.items, result, strict=True):
            self.cx.values[c.name] = table(c.type, c.lane, {k: p[0] for k, p in phis.items()}, c.spread)
        return result

    def set(self, parts: list[dict[Key, str]]) -> None:
        """Let the carried names stand for `parts`."""
        for c, p in zip(self.items, parts, strict=True):
            self.cx.values[c.name] = table(c.type, c.lane, p, c.spread)


def counted(
    cx: Context, low: str, high: str, step: int, body: Step, carry: Carry, *, forward: str | None = None
) -> str:
    """`body(x)` for x = low, low + step, ... while x + step <= high; returns the first x not visited.

    `forward`: how far x moves each time, where that is not `step`.
    """
    b = cx.b
    before = carry.current()
    limit = ll.sub(b, high, str(step))
    b.enter()
    header, inside, after = b.label("loop"), b.label("body"), b.label("done")
    start = b.block
    b.do(f"br label %{header}")
    b.start(header)
    x, x_line = b.phi("i64")
    phis = carry.phis()
    more = b.emit(f"icmp sle i64 {x}, {limit}")
    b.do(f"br i1 {more}, label %{inside}, label %{after}")
    b.start(inside)
    body(x)
    following = b.emit(f"add nsw i64 {x}, {forward or step}")
    ends, end = carry.current(), b.block
    b.do(f"br label %{header}")
    b.fill(x_line, [(low, start), (following, end)])
    results: list[dict[Key, str]] = []
    for was, phi, now in zip(before, phis, ends, strict=True):
        for key, (_name, line) in phi.items():
            b.fill(line, [(was[key], start), (now[key], end)])
        results.append({key: name for key, (name, _) in phi.items()})
    b.leave()
    b.start(after)
    b.surface([x, *(p for parts in results for p in parts.values())])
    carry.set(results)
    return x


def drawn(cx: Context, counter: str, total: str, length: str, body: Step) -> None:
    """`body(x)` for runs of `length` of the numbers below `total`: the next run that no other thread has drawn."""
    b = cx.b
    b.enter()
    header, inside, after = b.label("draw"), b.label("drawn"), b.label("done")
    b.do(f"br label %{header}")
    b.start(header)
    low = b.emit(f"atomicrmw add ptr {counter}, i64 {length} monotonic")
    more = b.emit(f"icmp slt i64 {low}, {total}")
    b.do(f"br i1 {more}, label %{inside}, label %{after}")
    b.start(inside)
    counted(cx, low, ll.minimum(b, ll.add(b, low, length), total), 1, body, Carry(cx, []))
    b.do(f"br label %{header}")
    b.leave()
    b.start(after)


def branch(
    cx: Context, condition: str, body: Callable[[], None], carry: Carry, other: Callable[[], None] | None = None
) -> None:
    """`body()` if the i1 holds, else `other()`; carried tiles are merged after."""
    b = cx.b
    before = carry.current()
    values = dict(cx.values)
    then, otherwise, after = b.label("then"), b.label("else"), b.label("after")
    b.enter()
    b.do(f"br i1 {condition}, label %{then}, label %{otherwise}")
    b.start(then)
    body()
    ends_then, end_then = carry.current(), b.block
    b.do(f"br label %{after}")
    b.leave()
    cx.values = values
    carry.set(before)
    b.start(otherwise)
    if other is not None:
        b.enter()
        other()
    ends_other, end_other = carry.current(), b.block
    if other is not None:
        b.leave()
    b.do(f"br label %{after}")
    b.start(after)
    merged = carry.phis()
    for one, two, phi in zip(ends_then, ends_other, merged, strict=True):
        for key, (_name, line) in phi.items():
            b.fill(line, [(one[key], end_then), (two[key], end_other)])


def tiled(
    cx: Context, span: Span, step: int, unroll: int, full: Step, rest: Callable[[str, str], None], carry: Carry
) -> None:
    """`full(x)` for every whole tile of the span, `unroll` to a pass, then `rest(x, count)` for what is left."""
    if span.length is not None:
        _tiled_static(cx, span, step, unroll, full, rest, carry)
        return
    x = span.low
    if unroll > 1:
        x = counted(cx, x, span.high, step * unroll, lambda at: _several(cx, at, step, unroll, full), carry)
    x = counted(cx, x, span.high, step, full, carry)
    if step > 1:
        left = ll.sub(cx.b, span.high, x)
        some = cx.b.emit(f"icmp sgt i64 {left}, 0")
        branch(cx, some, lambda: rest(x, left), carry)


def _several(cx: Context, at: str, step: int, unroll: int, full: Step) -> None:
    for n in range(unroll):
        full(ll.add(cx.b, at, str(n * step)))


def _tiled_static(
    cx: Context, span: Span, step: int, unroll: int, full: Step, rest: Callable[[str, str], None], carry: Carry
) -> None:
    low, high = int(span.low), int(span.high)
    x = low
    passes = (high - x) // (step * unroll)
    if passes > 1:
        counted(cx, str(x), str(high), step * unroll, lambda at: _several(cx, at, step, unroll, full), carry)
        x += passes * step * unroll
    singles = (high - x) // step
    if singles > unroll:
        counted(cx, str(x), str(high), step, full, carry)
    else:
        _several(cx, str(x), step, singles, full)
    x += singles * step
    if x < high:
        rest(str(x), str(high - x))
