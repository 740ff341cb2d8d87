"""Operands of an op: checked one against another, outputs made or checked, leading dimensions folded to rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from tilewright.errors import ArgumentError, DTypeError
from tilewright.language.dtypes import DType, bf16, f8e4m3, f16, f32, i32, i64
from tilewright.runtime.buffer import Buffer, Shape, is_torch

FLOATS = (f32, bf16, f16)
CACHED = (*FLOATS, f8e4m3)
"""Of keys and values in a cache; those of 8 bits go with a scale for each head."""
INTEGERS = (i32, i64)
# A size that is only named ("N") takes whatever the operand has.
Sizes = Sequence[int | str]


class Operands:
    """The operands of one call of the op `name`; every message names the op, the operand and its shape."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._device: str | None = None
        self._operands: list[tuple[str, Buffer]] = []

    def take(self, name: str, x: Any, dtypes: tuple[DType, ...] = FLOATS, rank: int = 0) -> Buffer:
        """The buffer of operand `name`, of one of `dtypes`, with at least `rank` dimensions."""
        try:
            buffer = Buffer.of(x)
        except (ArgumentError, DTypeError) as error:
            raise type(error)(f"{self.name}: {name}: {error}") from None
        if buffer.dtype not in dtypes:
            takes = ", ".join(t.name for t in dtypes)
            raise DTypeError(
                f"{self.name}: {name} of shape {list(buffer.shape)} is {buffer.dtype}, not one of {takes}; "
                f"convert it with {'.to(torch.' if is_torch(x) else '.astype(numpy.'}{dtypes[0].numpy})"
            )
        if len(buffer.shape) < rank:
            self.refuse(name, buffer, f"needs at least {rank} dimensions; add the missing ones with [None]")
        if self._device not in (None, buffer.device):
            self.refuse(
                name, buffer, f"is on {buffer.device}, {self._operands[0][0]} on {self._device}; move one of them"
            )
        self._device = buffer.device
        self._operands.append((name, buffer))
        return buffer

    def expect(self, name: str, x: Any, sizes: Sizes, dtypes: tuple[DType, ...] = FLOATS, why: str = "") -> Buffer:
        """As `take`, of a shape that fits `sizes`; `why` says where the sizes come from."""
        buffer = self.take(name, x, dtypes)
        self.fit(name, buffer, sizes, why)
        return buffer

    def maybe(
        self, name: str, x: Any, sizes: Sizes, dtypes: tuple[DType, ...] = FLOATS, why: str = ""
    ) -> dict[str, Buffer]:
        """As `expect`, as a mapping to merge with others; empty where `x` is None."""
        return {} if x is None else {name: self.expect(name, x, sizes, dtypes, why)}

    def same_dtype(self, name: str, buffer: Buffer, other: str, reference: Buffer) -> None:
        """DTypeError unless both operands, which are multiplied with each other, have one dtype."""
        if buffer.dtype != reference.dtype:
            raise DTypeError(
                f"{self.name}: {name} of shape {list(buffer.shape)} is {buffer.dtype} but {other} is "
                f"{reference.dtype}; convert one of them"
            )

    def output(
        self,
        out: Any,
        like: Any,
        shape: Shape,
        dtype: DType,
        *,
        name: str = "out",
        dtypes: tuple[DType, ...] = FLOATS,
        in_place: tuple[str, ...] = (),
    ) -> tuple[Any, Buffer]:
        """`out` checked, or a new tensor of `dtype` and of the kind of `like`; and its buffer.

        An `out` of any of `dtypes` will do. One that shares memory with an operand is refused, as results would
        be read back as operands; only the operands named in `in_place` may be the very same elements.
        """
        if out is None:
            out = _empty(like, shape, dtype)
            return out, Buffer.of(out)
        earlier = tuple(self._operands)
        buffer = self.expect(name, out, shape, dtypes, "the shape of the result")
        self.writable(name, buffer)
        for other, operand in earlier:
            if buffer.overlaps(operand) and not (other in in_place and buffer.same_place(operand)):
                self.refuse(name, buffer, f"shares memory with {other}; give it memory of its own")
        return out, buffer

    def made(self, like: Any, shape: Shape, dtype: DType) -> Buffer:
        """A new tensor of the kind of `like`, for what one launch of a call leaves to the next."""
        return Buffer.of(_empty(like, shape, dtype))

    def scales(self, heads: int, keys: Buffer, values: Buffer, k_scale: Any, v_scale: Any) -> dict[str, Buffer]:
        """k_scale[Hkv] and v_scale[Hkv], f32, of a cache of 8 bits; nothing of a wider one, which goes without."""
        narrow = [x.dtype == f8e4m3 for x in (keys, values)]
        if narrow[0] != narrow[1]:
            raise DTypeError(f"{self.name}: keys are {keys.dtype} and values {values.dtype}; store both alike")
        given = {"k_scale": k_scale, "v_scale": v_scale}
        wrong = [name for name, x in given.items() if (x is not None) != narrow[0]]
        if wrong:
            fix = f"needs {wrong[0]}[{heads}] of f32" if narrow[0] else f"goes without {wrong[0]}"
            raise ArgumentError(f"{self.name}: a cache of {keys.dtype} {fix}; f8e4m3 alone is scaled")
        why = "a scale for each head of keys"
        return {n: self.expect(n, x, (heads,), (f32,), why) for n, x in given.items() if x is not None}

    def cache(self, name: str, x: Any, sizes: Sizes) -> Buffer:
        """A tensor of which the op writes a part and keeps the rest; it shares no memory with another operand."""
        earlier = tuple(self._operands)
        buffer = self.expect(name, x, sizes, CACHED, "[B or pages, Hkv, places, head size], from k and v")
        self.writable(name, buffer)
        for other, operand in earlier:
            if buffer.overlaps(operand):
                self.refuse(name, buffer, f"shares memory with {other}; give it memory of its own")
        return buffer

    def writable(self, name: str, buffer: Buffer) -> None:
        """ArgumentError unless each element of `buffer` may be written and is written once."""
        if not buffer.writable:
            self.refuse(name, buffer, "is read-only; pass a writable copy")
        if 0 in buffer.strides and any(
            n > 1 and not step for n, step in zip(buffer.shape, buffer.strides, strict=True)
        ):
            self.refuse(name, buffer, "has a broadcast dimension (stride 0); pass one with memory for each element")

    def refuse(self, name: str, buffer: Buffer, what: str) -> NoReturn:
        """Raise ArgumentError about operand `name`."""
        raise ArgumentError(f"{self.name}: {name} of shape {list(buffer.shape)} {what}")

    def fit(self, name: str, buffer: Buffer, sizes: Sizes, why: str = "") -> None:
        """ArgumentError unless `buffer` has the shape `sizes`."""
        shape = buffer.shape
        if shape == sizes or (
            len(shape) == len(sizes) and all(isinstance(n, str) or n == m for n, m in zip(sizes, shape, strict=True))
        ):
            return
        wanted = ", ".join(map(str, sizes))
        self.refuse(name, buffer, f"does not fit [{wanted}]{f' ({why})' if why else ''}; reshape or slice it so")


def _empty(like: Any, shape: Shape, dtype: DType) -> Any:
    """A new tensor of the kind and on the device of `like`."""
    if is_torch(like):
        import torch

        return like.new_empty(shape, dtype=getattr(torch, dtype.numpy.name))
    if isinstance(like, np.ndarray):
        try:
            return np.empty(shape, dtype.numpy)
        except (MemoryError, ValueError):  # ValueError: more bytes than can be counted
            taken = math.prod(shape) * dtype.bytes / 2**30
            raise ArgumentError(
                f"a result of shape {list(shape)} takes {taken:,.1f} GiB, which is not to be had; pass less at once"
            ) from None
    raise ArgumentError("a result for a bare Buffer has no library to be made with; pass out=")


# -------------------------------------------------------------------------------------------- folding


def fold_rows(buffers: Mapping[str, Buffer], lead: int) -> Iterator[dict[str, Buffer]]:
    """The first `lead` dimensions, which all `buffers` share, folded into one by strides; nothing is copied.

    Where strides do not allow one fold for all of them, the largest foldable group becomes the dimension and
    one set of buffers is given for each position of the others, so that few, large launches cover everything.
    """
    if not lead:
        yield {name: b.expand(0, 1) for name, b in buffers.items()}
        return
    if lead == 1:
        yield dict(buffers)
        return
    groups = _merged(buffers, lead)
    if len(groups) == 1:
        size, strides = groups[0]
        yield {
            name: _with_rows(b, b.pointer, size, step, lead)
            for step, (name, b) in zip(strides, buffers.items(), strict=True)
        }
        return
    rows = max(range(len(groups)), key=lambda g: groups[g][0])
    others = [group for g, group in enumerate(groups) if g != rows]
    size, strides = groups[rows]
    for place in itertools.product(*(range(count) for count, _ in others)):
        part = {}
        for n, (name, b) in enumerate(buffers.items()):
            offset = sum(i * steps[n] for i, (_, steps) in zip(place, others, strict=True))
            part[name] = _with_rows(b, b.pointer + offset * b.dtype.bytes, size, strides[n], lead)
        yield part


def _with_rows(b: Buffer, pointer: int, size: int, stride: int, lead: int) -> Buffer:
    """`b` from `pointer` on, with one dimension of `size` in the place of its first `lead` ones."""
    shape, strides = (size, *b.shape[lead:]), (stride, *b.strides[lead:])
    return Buffer(pointer, shape, strides, b.dtype, b.device, b.owner, b.writable)


def _merged(buffers: Mapping[str, Buffer], lead: int) -> list[tuple[int, tuple[int, ...]]]:
    """Groups of leading dimensions that are one dimension in every buffer: (size, stride in each buffer)."""
    shape = next(iter(buffers.values())).shape[:lead]
    dims = [(n, tuple(b.strides[i] for b in buffers.values())) for i, n in enumerate(shape) if n != 1]
    if not dims:
        return [(math.prod(shape), tuple(b.strides[lead - 1] for b in buffers.values()))]
    # The order in which rows are visited is free: outermost is what steps furthest.
    dims.sort(key=lambda dim: tuple(-abs(stride) for stride in dim[1]))
    groups = [dims[0]]
    for size, strides in dims[1:]:
        outer, outer_strides = groups[-1]
        if all(a == size * b for a, b in zip(outer_strides, strides, strict=True)):
            groups[-1] = (outer * size, strides)
        else:
            groups.append((size, strides))
    return groups


def broadcast(buffer: Buffer, shape: Shape, keep: int) -> Buffer:
    """`buffer` with its dimensions before the last `keep` broadcast to `shape` by strides of 0."""
    lead = len(buffer.shape) - keep
    missing = len(shape) - lead
    old_shape = (1,) * missing + buffer.shape[:lead]
    strides = (0,) * missing + buffer.strides[:lead]
    steps = tuple(0 if old == 1 else step for old, step in zip(old_shape, strides, strict=True))
    return Buffer(
        buffer.pointer, (*shape, *buffer.shape[lead:]), (*steps, *buffer.strides[lead:]),
        buffer.dtype, buffer.device, buffer.owner, False,
    )  # fmt: skip


def in_range(op: str, name: str, buffer: Buffer, low: int, high: int, what: str) -> None:
    """ArgumentError unless every integer of `buffer` (on the cpu) is in [low, high); elsewhere see `name_some`."""
    if buffer.device != "cpu" or 0 in buffer.shape:
        return
    values = buffer.numpy()
    for extreme in (int(values.min()), int(values.max())):
        if not low <= extreme < high:
            raise ArgumentError(f"{op}: {name} holds {extreme}, outside [{low}, {high}): {what}")


def name_some(given: Operands, name: str, buffer: Buffer, count: int, what: str) -> None:
    """ArgumentError for integers on a GPU that name one of `count` places (`what`) where there is none.

    Nobody looks at them there: the kernels take the nearest place that exists (`operators.operator.inside`).
    """
    if buffer.device != "cpu" and not count and 0 not in buffer.shape:
        given.refuse(name, buffer, f"cannot name any of {what}: there are none")
