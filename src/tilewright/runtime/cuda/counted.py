"""Launches on a GPU in records (`runtime.record`): compiled code counts a call before it asks the driver to launch.

A call that is to be timed it leaves to Python, with the pointers written already. It looks for no swap: after one, no
form of a call is equal to an earlier one (`form.forget`), and a record that is under way keeps its kernel.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from tilewright.build.jit import Library
from tilewright.errors import TilewrightError
from tilewright.runtime import builtin
from tilewright.runtime.cuda.stopwatch import timed
from tilewright.runtime.monitor import SAMPLE, Counter, Tally
from tilewright.runtime.record import Part

_TALLY, _SHAPE, _LAUNCH, _CONFIG, _KERNEL, _PARAMETERS = range(6)
_TIME_IT = -1
"""What compiled code gives for a call that it has counted and not launched; no status of the driver."""
_STREAM = 32
"""Bytes from the start of a launch's configuration to its stream."""

_TEXT = f"""
; At %config: two counters; the driver's launch, and what it takes.
define i32 @tw_gpu_launch(ptr %config, ptr %none, ptr %nothing, ptr %null) {{
  %shape_at = getelementptr i64, ptr %config, i64 {_SHAPE}
  %shape = load ptr, ptr %shape_at
  %all = atomicrmw add ptr %shape, i64 1 monotonic
  %tally = load ptr, ptr %config
  %calls = atomicrmw add ptr %tally, i64 1 monotonic
  %turn = and i64 %calls, {SAMPLE}
  %timed = icmp eq i64 %turn, 1
  br i1 %timed, label %python, label %go
go:
  %launch_at = getelementptr i64, ptr %config, i64 {_LAUNCH}
  %launch = load ptr, ptr %launch_at
  %how_at = getelementptr i64, ptr %config, i64 {_CONFIG}
  %how = load ptr, ptr %how_at
  %kernel_at = getelementptr i64, ptr %config, i64 {_KERNEL}
  %kernel = load ptr, ptr %kernel_at
  %parameters_at = getelementptr i64, ptr %config, i64 {_PARAMETERS}
  %parameters = load ptr, ptr %parameters_at
  %status = call i32 %launch(ptr %how, ptr %kernel, ptr %parameters, ptr null)
  ret i32 %status
python:
  ret i32 {_TIME_IT}
}}
"""


@cache
def _code() -> Library | None:
    try:
        return builtin.library(_TEXT, ())
    except (TilewrightError, OSError):
        return None


def part(launch: Part, number: int, tally: Tally, shape: Counter) -> Part:
    """The words of a launch in a record, with its calls counted."""
    words, kept = launch
    code = _code()
    if code is None:
        return launch
    own = Recorded(code, number, tally, shape, words[:4], kept[-2])
    again = own.again
    return [code.address("tw_gpu_launch"), own.address, 0, 0, words[4], id(again), *words[6:]], (own, again, *kept)


class Recorded:
    """What compiled code finds at the address of a launch that it counts."""

    def __init__(self, code: Library, number: int, tally: Tally, shape: Counter, entry: list[int], call: Any) -> None:
        self._code, self._number, self._tally, self._shape = code, number, tally, shape
        self._call, self._again = call, call.again
        counters = [ctypes.addressof(x.words) for x in (tally, shape)]
        self._config = (ctypes.c_int64 * 6)(*counters, *entry)
        self._stream = ctypes.c_int64.from_address(entry[1] + _STREAM).value

    @property
    def address(self) -> int:
        """Of the configuration."""
        return ctypes.addressof(self._config)

    def again(self, status: int) -> None:
        """A call that did not run: it is to be timed, or the driver refused."""
        if status == _TIME_IT:
            timed(self._number, self._stream, lambda: self._call(self._stream), self._tally)
        else:
            self._again(status)


__all__ = ["Recorded", "part"]
