"""Where tensors and buffers lie, as C++ sees it: the address of a tile in one, and how wide its accesses may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tilewright.emit.cuda_layouts import Layouts
from tilewright.emit.cuda_scope import Scope
from tilewright.emit.cuda_text import cname
from tilewright.language import ir
from tilewright.language.dtypes import DType

WIDEST = 16
"""Bytes of the widest access."""


@dataclass(frozen=True)
class Place:
    """A tensor or buffer: a C++ pointer to its first element, one stride per dimension, and what accesses may rely on.

    `align` is a number of bytes that the pointer and every stride but a unit one are multiples of; `origin` the
    position of the first element along each dimension, None where that is 0. `readonly`: nobody writes to it. `shared`:
    it lies in a block's shared memory. `ends`:
    the C++ name of the `tw::Ends` that tells where a tensor with rows of neighbours begins and ends in memory.
    """

    pointer: str
    dtype: DType
    strides: tuple[str, ...]
    align: int = 1
    readonly: bool = False
    origin: tuple[str | None, ...] = ()
    ends: str = ""
    shared: bool = False


@dataclass(frozen=True)
class Staged:
    """An operand of dots in shared memory: its C++, the axis that the result keeps, whether rows run along the sum."""

    panel: str
    axis: str
    down: bool


@dataclass(frozen=True)
class Address:
    """A tile in a place: pointer and offset of the point where it begins, the terms of its axes, and how many
    neighbours an access may take."""

    pointer: str
    offset: str
    terms: tuple[str, ...]
    most: int

    @property
    def point(self) -> str:
        """C++ of a pointer to where the tile begins."""
        return f"{self.pointer} + {self.offset}" if self.offset else self.pointer

    @property
    def element(self) -> str:
        """C++ of the element there."""
        return f"{self.pointer}[{self.offset}]" if self.offset else f"*{self.pointer}"


@dataclass(frozen=True)
class Addresses:
    """Addresses in the scope at hand; `types` are those of values in sight, `name` gives their C++ names."""

    scope: Scope
    layouts: Layouts
    types: Mapping[str, ir.TileType]
    name: Callable[[str], str]

    def of(self, place: Place, ref: ir.Ref, axes: tuple[str, ...], held: frozenset[str] = frozenset()) -> Address:
        """The address of a tile with these axes.

        Along `held` axes what lies past an edge is not masked: the last of what exists is read in its place.
        """
        fixed: list[str] = []
        terms: dict[str, str] = {}
        picked: list[str] = []
        most = 1
        for d, index in enumerate(ref.index):
            stride = place.strides[d]
            origin = place.origin[d] if place.origin else None
            if isinstance(index, str) and index in self.types and self.types[index].axes:
                picked.append(f"tw::picked({self.name(index)}, {stride})")
                continue
            if isinstance(index, str) and index in axes:
                call = "tw::held" if index in held and stride != "1" else "tw::by"
                terms[index] = f"{call}({cname(index)}, {'tw::unit' if stride == '1' else stride})"
                if stride == "1":
                    most = self._neighbours(place, index)
            elif (point := self.point(index)) != "0":
                fixed.append(_times(point, stride))
            if origin not in (None, "0"):
                fixed.append(f"-{_times(str(origin), stride)}")
        masks = [f"tw::by({cname(a)}, 0)" for a in self.layouts.order(axes) if a not in terms]
        ordered = [terms[a] for a in self.layouts.order(terms)]
        offset = " + ".join(fixed).replace("+ -", "- ")
        return Address(place.pointer, offset, (*ordered, *masks, *picked), most)

    def _neighbours(self, place: Place, axis: str) -> int:
        """Elements along a stride of one that an access may take: what alignment of rows and tiles allows."""
        now, most = self.scope[axis], max(1, WIDEST // place.dtype.bytes)
        most = min(most, place.align // place.dtype.bytes or 1, self.layouts.of[axis].run)
        while now.align % most:
            most //= 2
        return most

    def point(self, index: ir.Index) -> str:
        """C++ of where an index begins."""
        if isinstance(index, int):
            return str(index)
        return self.name(index) if index in self.types else self.scope[index].start

    def edge(self, axis: str) -> int:
        """0 where every tile of an axis exists whole, else a power of two of which each ends at a multiple."""
        now = self.scope[axis]
        return 0 if now.size == self.layouts.of[axis].points else now.grain

    def reaches_past(self, place: Place, ref: ir.Ref, most: int) -> bool:
        """Whether accesses of `most` neighbours may reach past the tensor: where a tile ends inside of one."""
        unit = [i for i, s in zip(ref.index, place.strides, strict=True) if s == "1" and i in self.layouts.of]
        return any(self.edge(str(i)) % most for i in unit)

    def whole_words(self, place: Place, ref: ir.Ref, axes: tuple[str, ...]) -> bool:
        """Whether threads hold runs of 16 bytes along the unit stride, wherever these begin."""
        unit = [i for i, s in zip(ref.index, place.strides, strict=True) if s == "1" and i in axes]
        return bool(unit) and self.layouts.of[str(unit[0])].run * place.dtype.bytes == WIDEST


def _times(point: str, stride: str) -> str:
    if stride == "1":
        return point
    return stride if point == "1" else f"{point} * {stride}"


__all__ = ["WIDEST", "Address", "Addresses", "Place", "Staged"]
