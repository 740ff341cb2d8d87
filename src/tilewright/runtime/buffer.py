"""Buffers: strided views of memory that somebody else owns, and the views that strides alone can express."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from tilewright.errors import ArgumentError
from tilewright.language.dtypes import DType, dtype

Shape = tuple[int, ...]

_LIVE_DEVICES = ("cpu", "cuda")
# dtype object (NumPy's or torch's) -> DType, filled as dtypes are met: a call looks up three or more of them.
_KNOWN_DTYPES: dict[object, DType] = {}
_TORCH_TYPES: dict[type, bool] = {}


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory as a kernel sees it: where it starts, how to step through it, what lies there.

    `strides` count ELEMENTS, may be 0 (a broadcast) or negative (a reversed view). `owner` is the array or
    tensor that keeps the memory alive. Views (`reshape`, `permute`, ...) are computed on the strides alone;
    one that would need a copy raises ArgumentError.
    """

    pointer: int
    shape: Shape
    strides: Shape
    dtype: DType
    device: str = "cpu"
    owner: object = field(default=None, compare=False, repr=False)
    writable: bool = True

    @staticmethod
    def of(x: Any) -> Buffer:
        """The buffer under a NumPy array (ml_dtypes included), a torch tensor or an array of Tilewright's on a GPU.

        A Buffer is returned as it is.

        Raises ArgumentError for anything else, for memory that strides in elements cannot describe, and for
        devices other than cpu and cuda; DTypeError for an element type that Tilewright does not know.
        """
        if type(x) is Buffer:
            return x
        if isinstance(x, np.ndarray):
            return _of_numpy(x)
        if is_torch(x):
            return _of_torch(x)
        own = getattr(x, "tilewright_buffer", None)
        if type(own) is Buffer:
            return own
        raise ArgumentError(f"expected a NumPy array or a torch tensor, got {type(x).__name__}; convert it first")

    # ------------------------------------------------------------------------------------------- facts

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def span(self) -> tuple[int, int]:
        """Addresses of the first byte and of the byte after the last one that the elements touch."""
        low = high = self.pointer
        width = self.dtype.bytes
        for size, stride in zip(self.shape, self.strides, strict=True):
            if size > 1:
                if stride > 0:
                    high += (size - 1) * stride * width
                else:
                    low += (size - 1) * stride * width
            elif not size:
                return self.pointer, self.pointer
        return low, high + width

    def same_place(self, other: Buffer) -> bool:
        """Whether element for element both are the same memory."""
        if self.pointer != other.pointer or self.shape != other.shape or self.dtype is not other.dtype:
            return False
        return all(n == 1 or a == b for n, a, b in zip(self.shape, self.strides, other.strides, strict=True))

    def overlaps(self, other: Buffer) -> bool:
        """Whether any byte belongs to both; interleaved views that share none (two halves of a row) do not."""
        (low, high), (other_low, other_high) = self.span, other.span
        if low >= other_high or other_low >= high or self.device != other.device:
            return False
        try:
            return bool(np.shares_memory(self._places(), other._places(), max_work=10_000))  # type: ignore[arg-type]
        except np.exceptions.TooHardError:
            return True

    # ------------------------------------------------------------------------------------------- views

    def reshape(self, shape: Sequence[int]) -> Buffer:
        """The same elements in row-major order under another shape; one size may be -1 and is worked out."""
        shape = _complete(shape, self)
        if shape == self.shape:
            return self
        strides = _restride(self.shape, self.strides, shape)
        if strides is None:
            _refuse(self, f"be reshaped to {list(shape)} without a copy")
        return self._view(self.pointer, shape, strides)

    def permute(self, order: Sequence[int]) -> Buffer:
        """Dimension `i` of the result is dimension `order[i]` of this buffer."""
        if sorted(order) != list(range(len(self.shape))):
            _refuse(self, f"be permuted by {list(order)}")
        return self._view(self.pointer, tuple(self.shape[i] for i in order), tuple(self.strides[i] for i in order))

    def swap(self, a: int, b: int) -> Buffer:
        """Dimensions `a` and `b` exchanged (a transpose); negative numbers count from the end."""
        order = list(range(len(self.shape)))
        order[a], order[b] = order[b], order[a]
        return self.permute(order)

    def select(self, dim: int, index: int) -> Buffer:
        """Position `index` of dimension `dim`, which disappears."""
        dim = self._dim(dim)
        if not 0 <= index < self.shape[dim]:
            _refuse(self, f"be selected at {index} of dimension {dim}")
        pointer = self.pointer + index * self.strides[dim] * self.dtype.bytes
        return self._view(pointer, _without(self.shape, dim), _without(self.strides, dim))

    def narrow(self, dim: int, start: int, length: int) -> Buffer:
        """Positions `start` to `start + length` of dimension `dim`."""
        dim = self._dim(dim)
        if not 0 <= start <= start + length <= self.shape[dim]:
            _refuse(self, f"be narrowed to [{start}, {start + length}) in dimension {dim}")
        pointer = self.pointer + (start * self.strides[dim] * self.dtype.bytes if length else 0)
        return self._view(pointer, _replaced(self.shape, dim, (length,)), self.strides)

    def split(self, dim: int, sizes: Sequence[int]) -> Buffer:
        """Dimension `dim` as several, outermost first: `[.., 8] -> split(-1, (2, 4)) -> [.., 2, 4]`."""
        dim = self._dim(dim)
        if math.prod(sizes) != self.shape[dim]:
            _refuse(self, f"have dimension {dim} split into {list(sizes)}")
        strides = [self.strides[dim] * math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
        return self._view(self.pointer, _replaced(self.shape, dim, sizes), _replaced(self.strides, dim, strides))

    def expand(self, dim: int, size: int) -> Buffer:
        """A new dimension before `dim` along which every position is the same memory (stride 0)."""
        dim = dim if dim >= 0 else dim + len(self.shape) + 1
        shape = (*self.shape[:dim], size, *self.shape[dim:])
        return self._view(self.pointer, shape, (*self.strides[:dim], 0, *self.strides[dim:]))

    def numpy(self) -> npt.NDArray[Any]:
        """The same memory as a NumPy array (cpu only); it keeps the owner alive."""
        if self.device != "cpu":
            raise ArgumentError(f"a buffer on {self.device} cannot be read as a NumPy array; copy it to the cpu first")
        return self._places()

    # ------------------------------------------------------------------------------------------ helpers

    def _places(self) -> npt.NDArray[Any]:
        """An array of the same addresses and strides; its elements may be out of this processor's reach."""
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype.numpy)
        return np.asarray(_Exported(self)).view(self.dtype.numpy)

    def _view(self, pointer: int, shape: Shape, strides: Shape) -> Buffer:
        return Buffer(pointer, shape, strides, self.dtype, self.device, self.owner, self.writable)

    def _dim(self, dim: int) -> int:
        rank = len(self.shape)
        if not -rank <= dim < rank:
            _refuse(self, f"be indexed in dimension {dim}")
        return dim % rank


class _Exported:
    """A buffer in NumPy's array protocol; the array made from it holds it, and so the owner.

    Elements travel as opaque bytes (`V2`), since the protocol has no name for bf16.
    """

    def __init__(self, buffer: Buffer) -> None:
        width = buffer.dtype.bytes
        self.buffer = buffer
        self.__array_interface__ = {
            "version": 3,
            "shape": buffer.shape,
            "strides": tuple(stride * width for stride in buffer.strides),
            "typestr": f"|V{width}",
            "data": (buffer.pointer, not buffer.writable),
        }


def is_torch(x: object) -> bool:
    """Whether `x` is a torch tensor (Parameters and other subclasses too), asked without importing torch."""
    kind = type(x)
    known = _TORCH_TYPES.get(kind)
    if known is None:
        known = any(base.__module__ == "torch" and base.__name__ == "Tensor" for base in kind.__mro__)
        _TORCH_TYPES[kind] = known
    return known


def _of_numpy(x: npt.NDArray[Any]) -> Buffer:
    element = _KNOWN_DTYPES.get(x.dtype) or _learn(x.dtype)
    width = element.bytes
    flags = x.flags
    strides = x.strides
    if not flags.aligned or any(stride % width for stride in strides):
        raise ArgumentError(
            f"array of shape {list(x.shape)} has byte strides {list(strides)} or a start that {element} elements of "
            f"{width} bytes do not fit; make a copy of it with numpy.ascontiguousarray"
        )
    steps = strides if width == 1 else tuple([stride // width for stride in strides])
    return Buffer(x.__array_interface__["data"][0], x.shape, steps, element, "cpu", x, flags.writeable)


def _of_torch(x: Any) -> Buffer:
    element = _KNOWN_DTYPES.get(x.dtype) or _learn(x.dtype)
    device = "cpu" if x.is_cpu else str(x.device)
    if device.partition(":")[0] not in _LIVE_DEVICES:
        raise ArgumentError(f"tensor of shape {list(x.shape)} is on {device}; Tilewright reads cpu and cuda tensors")
    try:
        return Buffer(x.data_ptr(), tuple(x.shape), x.stride(), element, device, x)
    except RuntimeError as error:
        raise ArgumentError(f"tensor of shape {list(x.shape)} has no plain strided memory; densify it first") from error


def _learn(name: Any) -> DType:
    """The DType of a NumPy or torch dtype that is met for the first time; DTypeError if Tilewright has none."""
    found = _KNOWN_DTYPES[name] = dtype(name)
    return found


def _complete(shape: Sequence[int], buffer: Buffer) -> Shape:
    """`shape` with its -1 worked out; ArgumentError if it does not hold as many elements as `buffer`."""
    shape = tuple(shape)
    if shape.count(-1) == 1:
        rest = -math.prod(shape)
        missing = buffer.size // rest if rest else 0
        shape = tuple([missing if n == -1 else n for n in shape])
    if any(n < 0 for n in shape) or math.prod(shape) != buffer.size:
        _refuse(buffer, f"be reshaped to {list(shape)}, which holds another number of elements")
    return shape


def _restride(shape: Shape, strides: Shape, target: Shape) -> Shape | None:
    """Strides under which `target` names the same elements in the same order, or None where none do."""
    if 0 in target:
        return tuple(math.prod(target[i + 1 :]) for i in range(len(target)))
    blocks: list[list[int]] = []  # maximal runs of elements with one stride: [count, stride], outermost first
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if blocks and blocks[-1][1] == size * stride:
            blocks[-1] = [blocks[-1][0] * size, stride]
        else:
            blocks.append([size, stride])
    found: list[int] = []
    step = 1
    for size in reversed(target):
        if size == 1:
            found.append(step)
            continue
        while blocks and blocks[-1][0] == 1:
            blocks.pop()
        if not blocks or blocks[-1][0] % size:
            return None
        count, stride = blocks[-1]
        found.append(stride)
        step = stride * size
        blocks[-1] = [count // size, step]
    return tuple(reversed(found))


def _without(values: Shape, dim: int) -> Shape:
    return values[:dim] + values[dim + 1 :]


def _replaced(values: Shape, dim: int, by: Sequence[int]) -> Shape:
    return (*values[:dim], *by, *values[dim + 1 :])


def _refuse(buffer: Buffer, what: str) -> NoReturn:
    raise ArgumentError(
        f"buffer of shape {list(buffer.shape)} and strides {list(buffer.strides)} cannot {what}; "
        "pass a contiguous tensor or another shape"
    )
