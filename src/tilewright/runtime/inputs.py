"""Operands drawn for a tile program: random ones, and ones that are hard on a kernel.

Hard operands hold ties, exact zeros of both signs and a few values far larger than the rest; integers stay inside what
the program does with them.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tilewright.errors import ArgumentError
from tilewright.language import ir
from tilewright.language.dtypes import DType
from tilewright.runtime.index_limits import Limit, limits

Array = npt.NDArray[Any]
Kind = Literal["random", "hard", "mixed"]
"""`random`: as in use, loops at full length. `hard`: see above. `mixed`: hard ones among random ones."""

TIES = (-1.0, -0.5, 0.5, 1.0)
ZEROS = (0.0, -0.0)
LARGE = {"f16": 8.0, "f8e4m3": 8.0}
_LARGE = 256.0
_FREE = 8  # integers that nothing bounds
_CHUNK = 1 << 18
_DIFFERENT = 4_194_301
"""Floats drawn for one tensor. A prime: longer tensors repeat them, and no two of their rows begin alike."""


class Drawn:
    """Tensors of floats that were drawn, kept up to `limit` bytes: the weights of one layer are drawn once for many
    searches. Nobody may write to them."""

    def __init__(self, limit: int = 1 << 29) -> None:
        self._limit, self._kept = limit, OrderedDict[Any, Array]()

    def floats(self, seed: tuple[int, int], shape: tuple[int, ...], dtype: DType, kind: Kind) -> Array:
        """As `_floats` draws them."""
        key = seed, shape, dtype.name, kind
        found = self._kept.pop(key, None)
        if found is None:
            found = _floats(np.random.default_rng(seed), shape, dtype, kind)
        self._kept[key] = found
        while sum(x.nbytes for x in self._kept.values()) > self._limit:
            self._kept.popitem(last=False)
        return found


@dataclass
class Operands:
    """Sizes, tensors as the kernel may lay them out, and scalars; outputs hold poison until a kernel writes them."""

    sizes: dict[str, int]
    tensors: dict[str, Array] = field(default_factory=dict)
    scalars: dict[str, float | int] = field(default_factory=dict)


def written(kernel: ir.Kernel) -> tuple[str, ...]:
    """The tensors that a program stores to, in order of its parameters."""
    stores = {s.ref.buffer for s in ir.walk(kernel.body) if isinstance(s, ir.Store)}
    return tuple(p.name for p in kernel.params if p.name in stores)


def poison_of(dtype: DType) -> float | int:
    """What an element holds that nobody has written: NaN, or the least integer."""
    if dtype.kind == "float":
        return math.nan
    return int(np.iinfo(dtype.numpy).min) if dtype.kind == "int" else 0


def draw(
    kernel: ir.Kernel,
    sizes: Mapping[str, int],
    *,
    seed: int,
    kind: Kind = "random",
    updates: Collection[str] = (),
    unit: Mapping[str, int] | None = None,
    kept: Drawn | None = None,
) -> Operands:
    """Operands of `kernel` at `sizes`, the same for the same seed.

    Each has a generator of its own: it is the same whatever sizes others have, and may be found among `kept` ones.
    What the program writes is poisoned, but for `updates`, whose contents count as input. `unit` names the dimension
    with stride one of tensors where it is not the last. Raises ArgumentError where the integers that the program
    needs do not exist (nothing to index, or no two different places to write to).
    """
    known, kept = limits(kernel, sizes), kept or Drawn(0)
    outputs = set(written(kernel)) - set(updates)
    operands = Operands(dict(sizes))
    for number, p in enumerate(kernel.params):
        own = seed, number
        random = np.random.default_rng(own)
        if p.dims is None:
            operands.scalars[p.name] = _scalar(random, p, known)
            continue
        shape = tuple(d if isinstance(d, int) else sizes[d] for d in p.dims)
        array = _laid_out(shape, p.dtype, (unit or {}).get(p.name))
        if p.name in outputs:
            array.fill(poison_of(p.dtype))
        elif p.dtype.kind == "float":
            array[...] = kept.floats(own, shape, p.dtype, kind)
        elif p.dtype.kind == "int":
            array[...] = _integers(random, shape, p, known[p.name], kind)
        else:
            array[...] = random.random(shape) < 0.5
        operands.tensors[p.name] = array
    return operands


def _laid_out(shape: tuple[int, ...], dtype: DType, unit: int | None) -> Array:
    """An array whose dimension `unit` (the last) has stride one, and the others their order."""
    if unit is None or unit == len(shape) - 1:
        return np.empty(shape, dtype.numpy)
    order = [d for d in range(len(shape)) if d != unit] + [unit]
    return np.empty([shape[d] for d in order], dtype.numpy).transpose(np.argsort(order))


def _floats(random: np.random.Generator, shape: tuple[int, ...], dtype: DType, kind: Kind) -> Array:
    """Some at a time, and the first of a long tensor only: the table of a vocabulary would take half a minute."""
    filled = np.empty(math.prod(shape), dtype.numpy)
    drawn = filled[:_DIFFERENT]
    for begin in range(0, drawn.size, _CHUNK):
        part = drawn[begin : begin + _CHUNK]
        part[:] = _some_floats(random, part.size, dtype, kind)
    for begin in range(_DIFFERENT, filled.size, _DIFFERENT):
        part = filled[begin : begin + _DIFFERENT]
        part[:] = drawn[: part.size]
    return filled.reshape(shape)


def _some_floats(random: np.random.Generator, count: int, dtype: DType, kind: Kind) -> Array:
    values = random.standard_normal(count, np.float32)
    if kind == "random":
        return values
    chance = random.random(count, np.float32)
    share = 1.0 if kind == "hard" else 0.25
    for bound, choices in ((0.30, TIES), (0.15, ZEROS)):
        chosen = np.flatnonzero(chance < bound * share)
        values[chosen] = np.array(choices, np.float32)[random.integers(0, len(choices), chosen.size)]
    values[chance > 1 - 0.01 * share] *= LARGE.get(dtype.name, _LARGE)
    return values


def _integers(random: np.random.Generator, shape: tuple[int, ...], p: ir.Param, limit: Limit, kind: Kind) -> Array:
    count, most = math.prod(shape), limit.most
    if count and most is not None and most < 0:
        raise ArgumentError(f"{p.name} has elements but nothing to index; give sizes that are not 0")
    if most is None:
        info = np.iinfo(p.dtype.numpy)
        return random.integers(max(-_FREE, info.min), min(_FREE, info.max) + 1, shape)
    if limit.scatters:
        return _distinct(random, shape, p.name, most)
    if kind == "random" and (limit.begins_loop or limit.ends_loop):  # loops at full length
        return np.full(shape, most if limit.ends_loop else 0)
    values = random.integers(0, most + 1, shape)
    edge = random.random(shape) < (0.0 if kind == "random" else 0.3)
    return np.where(edge, random.choice([0, min(1, most), most], shape), values)


def _distinct(random: np.random.Generator, shape: tuple[int, ...], name: str, most: int) -> Array:
    """Places to write to: all different if there are enough, else different along the last dimension."""
    count = math.prod(shape)
    if count <= most + 1:
        return random.choice(most + 1, count, replace=False).reshape(shape)
    if shape[-1] > most + 1:
        raise ArgumentError(
            f"{name} names {shape[-1]} places to write to, of {most + 1}; give sizes with enough of them"
        )
    rows = [random.choice(most + 1, shape[-1], replace=False) for _ in range(count // shape[-1])]
    return np.array(rows).reshape(shape)


def _scalar(random: np.random.Generator, p: ir.Param, known: Mapping[str, Limit]) -> float | int:
    if p.dtype.kind == "float":
        return float(np.float32(random.uniform(0.05, 0.5)))
    most = known[p.name].most
    return int(random.integers(0, (_FREE if most is None else max(most, 0)) + 1))


__all__ = ["Drawn", "Kind", "Operands", "draw", "poison_of", "written"]
