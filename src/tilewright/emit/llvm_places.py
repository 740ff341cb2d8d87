"""Where tensors and buffers lie, and the pointers to the elements of a Ref in one."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.emit import llvm_builder as ll
from tilewright.emit.llvm_values import Context, read
from tilewright.language.dtypes import DType
from tilewright.language.ir import Ref

LINE = 64
"""Bytes of a cache line."""


@dataclass(frozen=True)
class Panel:
    """A packed order: dimension `dim` in blocks of `block`, `depth` before the block, `pair` depth elements together.

    The element (n, k) of a panel lies at (n // block, k // pair, n % block, k % pair).
    """

    dim: int
    depth: int
    block: int
    pair: int = 1


def grouped(layout: str, dtype: DType) -> int:
    """Neighbours of the depth axis that lie side by side in a packed order: the `pair` of its panels."""
    return {"panel": 1, "pair": 2, "quad": 4, "tile": LINE // dtype.bytes}[layout]


@dataclass(frozen=True)
class Place:
    """A tensor or buffer: pointer, element type, strides in elements (literals where known) and what is sure of it."""

    name: str
    pointer: str
    dtype: DType
    strides: tuple[str, ...]
    align: int = 1  # bytes that the pointer and every row start are multiples of
    panel: Panel | None = None
    origin: tuple[str | None, ...] = ()  # axes that a block-local buffer is relative to
    padded: bool = False  # elements past the end exist and are zero

    @property
    def unit_dims(self) -> tuple[int, ...]:
        """Dimensions whose neighbours are neighbours in memory."""
        return tuple(d for d, s in enumerate(self.strides) if s == "1")


class Address:
    """Pointers to the elements of one Ref: what does not change in a loop is computed before it."""

    def __init__(self, cx: Context, place: Place, ref: Ref) -> None:
        self.cx, self.place, self.ref = cx, place, ref
        self._lane: str | None = None

    def pointer(self, point: dict[str, int], lane: str | None = None, *, clamp: bool = True) -> str:
        """Pointer to the element at `point` (positions within each axis).

        Rows past a ragged end repeat the last one (`clamp`); the lane axis is masked instead, and a padded
        buffer has those rows.
        """
        self._lane, clamp = lane, clamp and not self.place.padded
        terms: list[tuple[str, str]] = []
        displacement = 0
        for base, offset, stride in self._indices(point, clamp):
            if ll.is_const(stride):
                displacement += offset * int(stride)
            elif offset:
                terms.append((str(offset), stride))
            terms.append((base, stride))
        return self._gep(terms, displacement)

    def _indices(self, point: dict[str, int], clamp: bool) -> list[tuple[str, int, str]]:
        indices = [self._index(d, i, point, clamp) for d, i in enumerate(self.ref.index)]
        panel = self.place.panel
        if panel is None:
            return [(b, o, s) for (b, o), s in zip(indices, self.place.strides, strict=True)]
        return self._panel_indices(indices, panel)

    def _panel_indices(self, indices: list[tuple[str, int]], panel: Panel) -> list[tuple[str, int, str]]:
        b, strides = self.cx.b, self.place.strides
        base, offset = indices[panel.dim]
        block, inside = divmod(offset, panel.block)
        result = [(i[0], i[1], strides[d]) for d, i in enumerate(indices) if d not in (panel.dim, panel.depth)]
        start = ll.udiv(b, base, str(panel.block))
        result.append((start, block, strides[panel.dim]))
        if self._straddles(panel):  # the range does not start at a block
            result.append((ll.sub(b, base, ll.mul(b, start, str(panel.block))), 0, str(panel.pair)))
        result.append(("0", inside, str(panel.pair)))
        depth, step = indices[panel.depth]
        pairs = ll.udiv(b, depth, str(panel.pair))
        result.append((pairs, step // panel.pair, str(panel.block * panel.pair)))
        result.append(("0", step % panel.pair, "1"))
        return result

    def _straddles(self, panel: Panel) -> bool:
        index = self.ref.index[panel.dim]
        return not (isinstance(index, str) and index in self.cx.axes and self.cx.axes[index].extent % panel.block == 0)

    def _index(self, dim: int, index: str | int, point: dict[str, int], clamp: bool) -> tuple[str, int]:
        """(base operand, constant offset) of one index."""
        cx = self.cx
        if isinstance(index, int):
            return "0", index
        if index in cx.axes:
            state = cx.axes[index]
            base = state.base
            if self.place.origin and (origin := self.place.origin[dim]) is not None:
                base = ll.sub(cx.b, base, cx.axes[origin].base)
            at = 0 if state.each else point.get(index, 0)
            if clamp and at and state.count is not None and index != self._lane:
                last = self._clamped(at, state.count)
                return ll.add(cx.b, base, ll.mul(cx.b, last, str(state.apart))), 0
            return base, at * state.apart
        value = cx.values[index]
        where = {a: point[a] for a in value.axes}
        scalar = read(cx, value, where, None)
        if value.dtype.name == "i32" and scalar.startswith("%"):
            scalar = cx.b.hoist(f"sext i32 {scalar} to i64", scalar)
        return scalar, 0

    def _clamped(self, at: int, count: str) -> str:
        """The position `at`, or the last that exists: a load past the end repeats the last row."""
        return ll.minimum(self.cx.b, str(at), ll.sub(self.cx.b, count, "1"))

    def _gep(self, terms: list[tuple[str, str]], displacement: int) -> str:
        b = self.cx.b
        size = self.place.dtype.bytes
        pointer = self.place.pointer
        offsets = [ll.mul(b, base, stride) for base, stride in terms if base != "0"]
        for offset in sorted(offsets, key=b.depth):
            if ll.is_const(offset):
                displacement += int(offset)
            else:
                pointer = b.hoist(f"getelementptr {_element(size)}, ptr {pointer}, i64 {offset}", pointer, offset)
        if displacement:
            pointer = b.hoist(f"getelementptr i8, ptr {pointer}, i64 {displacement * size}", pointer)
        return pointer


def _element(size: int) -> str:
    return f"i{8 * size}"


def axis_dims(cx: Context, ref: Ref) -> dict[str, int]:
    """Which dimension each axis of a ref runs along (axes inside index values are not among them)."""
    return {i: d for d, i in enumerate(ref.index) if isinstance(i, str) and i in cx.axes and not cx.axes[i].each}


def neighbouring(cx: Context, place: Place, dims: dict[str, int], axes: tuple[str, ...]) -> list[str]:
    """Axes along which the points of a tile are neighbours in memory."""
    return [a for a in axes if a in dims and dims[a] in place.unit_dims and cx.axes[a].apart == 1]


__all__ = ["LINE", "Address", "Panel", "Place", "axis_dims", "grouped", "neighbouring"]
