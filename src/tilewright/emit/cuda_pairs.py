"""Pairs of neighbours in memory that a body loads, or stores, one by one: an access of twice the width moves both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tilewright.emit.cuda_places import WIDEST, Place
from tilewright.language import ir


@dataclass(frozen=True)
class Pairs:
    """`loads`: the name of each load of a pair, with that of the first of the two.

    `stores`: the second store of each pair, with the first one, which it makes, too.
    """

    loads: Mapping[str, str] = field(default_factory=dict)
    stores: Mapping[ir.Store, ir.Store] = field(default_factory=dict)

    def delayed(self, store: ir.Store) -> bool:
        """Whether another store makes this one, too."""
        return store in self.stores.values()


def find_pairs(body: tuple[ir.Stmt, ...], places: Mapping[str, Place], types: Mapping[str, ir.TileType]) -> Pairs:
    """The pairs of a body: loads of what nobody writes, and stores with none but computed values between them.

    `types` are those of values; the places of a pair differ by one along the dimension with stride one, the first of
    them at an even position, and pointer and other strides are multiples of both.
    """
    loads: dict[str, str] = {}
    stores: dict[ir.Store, ir.Store] = {}
    waiting: dict[tuple[object, ...], str] = {}
    last: ir.Store | None = None
    for stmt in body:
        match stmt:
            case ir.Let(name, type_, ir.Load(ref), notes) if type_.axes and _may(ref, places) and _read(ref, places):
                key = (_even(ref, places), type_, notes)
                last = None
                if _odd(ref, places) and key in waiting:
                    loads |= {waiting[key]: waiting[key], name: waiting[key]}
                elif not _odd(ref, places):
                    waiting[key] = name
            case ir.Store(ref, value) if _may(ref, places) and types[value].axes:
                if last is not None and _odd(ref, places) and _alike(last, stmt, places, types):
                    stores[stmt] = last
                last = None if _odd(ref, places) else stmt
            case ir.Let(_, _, expr) if not isinstance(expr, ir.Load):
                pass
            case _:
                last = None
    return Pairs(loads, stores)


def _alike(first: ir.Store, second: ir.Store, places: Mapping[str, Place], types: Mapping[str, ir.TileType]) -> bool:
    same = first.ref == _even(second.ref, places) and first.notes == second.notes
    return same and types[first.value] == types[second.value]


def _dim(ref: ir.Ref, places: Mapping[str, Place]) -> int | None:
    """The dimension with stride one."""
    strides = places[ref.buffer].strides if ref.buffer in places else ()
    return strides.index("1") if "1" in strides else None


def _may(ref: ir.Ref, places: Mapping[str, Place]) -> bool:
    """Whether a place can be one of a pair."""
    dim = _dim(ref, places)
    if dim is None or not isinstance(ref.index[dim], int):
        return False
    place = places[ref.buffer]
    both = 2 * place.dtype.bytes
    fits = both <= WIDEST and place.align % both == 0
    return fits and place.dtype.kind == "float" and not place.shared and place.origin == ()


def _read(ref: ir.Ref, places: Mapping[str, Place]) -> bool:
    return places[ref.buffer].readonly


def _odd(ref: ir.Ref, places: Mapping[str, Place]) -> bool:
    dim = _dim(ref, places)
    assert dim is not None
    return int(ref.index[dim]) % 2 == 1


def _even(ref: ir.Ref, places: Mapping[str, Place]) -> ir.Ref:
    """The place of the first of a pair."""
    dim = _dim(ref, places)
    assert dim is not None
    at = int(ref.index[dim]) // 2 * 2
    return replace(ref, index=(*ref.index[:dim], at, *ref.index[dim + 1 :]))


__all__ = ["Pairs", "find_pairs"]
