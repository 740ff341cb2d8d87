"""Weights on disk: a memory-mapped reader of safetensors files, single or sharded.

Our own reader, because the `safetensors` library gives NumPy no bf16 and copies every tensor; here a tensor is a
read-only view of the mapped file. The format: a u64 (little endian) header length, a JSON header
`{name: {"dtype", "shape", "data_offsets": [begin, end]}}`, then the data that the offsets count from.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from tilewright.errors import WeightsError

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
_LENGTH_BYTES = 8
_MAX_HEADER = 100_000_000  # the format's own limit
_COPY_BLOCK = 1 << 24
_DTYPES: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: `begin` and `end` are byte offsets into the file."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """One mapped file. Tensors are views: they keep the map alive, and are invalid in no other way."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.tensors: Mapping[str, TensorInfo] = {}
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as file:
                if size < _LENGTH_BYTES:
                    raise self._damaged(f"it is {size} bytes long, too short for a header")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise WeightsError(
                f"{self.path}: cannot be read ({error.strerror}); fetch the file or correct the path"
            ) from None
        self.tensors = {info.name: info for info in self._read_header(size)}

    def tensor(self, name: str) -> npt.NDArray[Any]:
        """The tensor called `name`, read-only, in place."""
        info = self.tensors[name]
        return np.ndarray(info.shape, info.dtype, buffer=self._map, offset=info.begin)

    def copy_into(self, name: str, out: npt.NDArray[Any]) -> None:
        """Copy a tensor to `out`, cast to its dtype, and give the pages of the map back block by block.

        So a load never holds more than one block twice. The pages come again from the file if read again.
        """
        info, source = self.tensors[name], self.tensor(name)
        if source.ndim == 0:
            out[...] = source
            return
        row = max(1, (info.end - info.begin) // max(1, len(source)))
        rows = max(1, _COPY_BLOCK // row)
        for first in range(0, len(source), rows):
            out[first : first + rows] = source[first : first + rows]
            self._release(info.begin + first * row, min(info.end, info.begin + (first + rows) * row))

    def _release(self, begin: int, end: int) -> None:
        """Give back every resident page that holds a byte of [begin, end); a no-op on systems without madvise."""
        if hasattr(mmap, "MADV_DONTNEED"):
            begin = begin // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, begin, end - begin)

    # ------------------------------------------------------------------------------------ the header

    def _read_header(self, size: int) -> list[TensorInfo]:
        """All tensors in file order, after every check that a damaged file could fail."""
        length = int.from_bytes(self._map[:_LENGTH_BYTES], "little")
        if length > min(size - _LENGTH_BYTES, _MAX_HEADER):
            raise self._damaged(f"its header claims {length} bytes, the file has {size}")
        try:
            header = json.loads(self._map[_LENGTH_BYTES : _LENGTH_BYTES + length], object_pairs_hook=_no_duplicates)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"its header is not valid JSON ({error})") from None
        if not isinstance(header, dict):
            raise self._damaged("its header is not a JSON object")
        header.pop("__metadata__", None)
        start = _LENGTH_BYTES + length
        infos = sorted((self._info(n, e, start) for n, e in header.items()), key=lambda i: (i.begin, i.end))
        self._check_layout(infos, start, size)
        return infos

    def _info(self, name: str, entry: Any, start: int) -> TensorInfo:
        """One header entry, with its offsets made absolute."""
        try:
            kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        except (TypeError, KeyError, ValueError):
            raise self._damaged(f"tensor {name} lacks dtype, shape or data_offsets") from None
        if kind not in _DTYPES:
            raise WeightsError(f"{self.path}: tensor {name} has dtype {kind}; Tilewright reads {', '.join(_DTYPES)}")
        if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
            raise self._damaged(f"tensor {name} has shape {list(shape)} and offsets {begin}, {end}")
        dtype = np.dtype(_DTYPES[kind])
        wanted = math.prod(shape) * dtype.itemsize
        if end - begin != wanted:
            raise self._damaged(f"tensor {name}, {kind}{list(shape)}, needs {wanted} bytes and has {end - begin}")
        return TensorInfo(name, dtype, shape, start + begin, start + end)

    def _check_layout(self, infos: list[TensorInfo], start: int, size: int) -> None:
        """Tensors lie one after the other, none over another, and end where the file ends."""
        position, previous = start, "the header"
        for info in infos:
            if info.end > size:
                raise self._damaged(f"it is truncated: tensor {info.name} ends at byte {info.end}, the file at {size}")
            if info.begin != position:
                what = "overlaps" if info.begin < position else "leaves a hole after"
                raise self._damaged(f"tensor {info.name} {what} {previous}")
            position, previous = info.end, info.name
        if position != size:
            raise self._damaged(f"{size - position} bytes follow the last tensor")

    def _damaged(self, why: str) -> WeightsError:
        return WeightsError(f"{self.path}: damaged safetensors file: {why}; fetch the file again")


def _no_duplicates(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are all different."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"{key!r} stands twice")
        result[key] = value
    return result


class Checkpoint(Mapping[str, TensorInfo]):
    """All tensors of a model folder by name, wherever `model.safetensors` or its index puts them."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index, single = self.folder / INDEX_NAME, self.folder / SINGLE_NAME
        if index.is_file():
            self._home = _read_index(index)
        elif single.is_file():
            file = SafetensorsFile(single)
            self._home = dict.fromkeys(file.tensors, file)
        else:
            raise WeightsError(
                f"{self.folder}: neither {SINGLE_NAME} nor {INDEX_NAME} is there; convert the weights to safetensors "
                "(save_pretrained of transformers does) or fetch them again"
            )

    def __getitem__(self, name: str) -> TensorInfo:
        return self._home[name].tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._home)

    def __len__(self) -> int:
        return len(self._home)

    def tensor(self, name: str) -> npt.NDArray[Any]:
        """The tensor called `name`, a read-only view of its file; WeightsError if there is none."""
        if name not in self._home:
            raise WeightsError(f"{self.folder}: tensor {name} is missing; fetch the weights again")
        return self._home[name].tensor(name)

    def copy_into(self, name: str, out: npt.NDArray[Any]) -> None:
        """Copy a tensor to `out`, cast to its dtype, giving back the pages that the copy made resident."""
        self._home[name].copy_into(name, out)


def _read_index(path: Path) -> dict[str, SafetensorsFile]:
    """Tensor name -> shard, each shard mapped once; WeightsError where the index and the shards disagree."""
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(shard) for shard in places.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise WeightsError(f"{path}: not an index with a weight_map; fetch the file again") from None
    for name in names:
        if Path(name).name != name:  # an index may not point outside its own folder
            raise WeightsError(f"{path}: shard {name!r} is not a plain file name; fetch the file again")
        if not (path.parent / name).is_file():
            raise WeightsError(f"{path.parent / name}: the index names this shard but it is missing; fetch it")
    shards = {name: SafetensorsFile(path.parent / name) for name in names}
    for tensor, shard in places.items():
        if tensor not in shards[shard].tensors:
            raise WeightsError(
                f"{path.parent / shard}: lacks tensor {tensor}, which {path.name} puts there; fetch both"
            )
    return {tensor: shards[shard] for tensor, shard in places.items()}
