"""Launches on the CPU in records (`record`): compiled code counts a call, looks for a swap, and runs the kernel.

What it does not do itself it leaves to Python, with the pointers written already: a kernel that was swapped since, one
that works in this thread's workspace, and a call that is to be timed.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from tilewright.build.jit import Library
from tilewright.runtime import builtin
from tilewright.runtime.monitor import SAMPLE
from tilewright.runtime.record import Part, launch_words

if TYPE_CHECKING:
    from tilewright.runtime.launch import Dispatched

_VERSION, _KNOWN, _TALLY, _SHAPE, _ENTRY, _WORDS = range(6)
_NEVER = -1  # a version that no slot has

_TEXT = f"""
; At %config: where the slot's version is, the version that is known, two counters, the kernel, its words.
define i32 @tw_host_launch(ptr %config, ptr %none, ptr %words, ptr %nothing) {{
  %tally_at = getelementptr i64, ptr %config, i64 {_TALLY}
  %tally = load ptr, ptr %tally_at
  %calls = atomicrmw add ptr %tally, i64 1 monotonic
  %shape_at = getelementptr i64, ptr %config, i64 {_SHAPE}
  %shape = load ptr, ptr %shape_at
  %all = atomicrmw add ptr %shape, i64 1 monotonic
  %version_at = load ptr, ptr %config
  %version = load atomic i64, ptr %version_at acquire, align 8
  %known_at = getelementptr i64, ptr %config, i64 {_KNOWN}
  %known = load i64, ptr %known_at
  %same = icmp eq i64 %version, %known
  %turn = and i64 %calls, {SAMPLE}
  %timed = icmp eq i64 %turn, 1
  %untimed = xor i1 %timed, true
  %here = and i1 %same, %untimed
  br i1 %here, label %run, label %python
run:
  %entry_at = getelementptr i64, ptr %config, i64 {_ENTRY}
  %entry = load ptr, ptr %entry_at
  call void %entry(ptr %words)
  ret i32 0
python:
  ret i32 1
}}
"""


@cache
def _code() -> Library:
    return builtin.library(_TEXT, ())


class HostCall:
    """A launch with words of its own, which compiled code writes pointers to; for the thread whose record it is in."""

    def __init__(self, launch: Dispatched) -> None:
        self._launch, self._slot = launch, launch.slot
        self._code = _code()  # threads that ask for it at once get one each
        self._address = launch.words.__array_interface__["data"][0]
        counted = [ctypes.addressof(x.words) for x in (launch.tally, launch.shape)]
        version = ctypes.addressof(self._slot.version)
        self._config = (ctypes.c_int64 * 6)(version, _NEVER, *counted, 0, self._address)
        self._settle()

    def part(self, sources: Sequence[tuple[int, int, int]]) -> Part:
        """The words of this launch in a record: for each (word, n, bytes) the word takes the n-th pointer, moved."""
        config = ctypes.addressof(self._config)
        entry = (self._code.address("tw_host_launch"), config, 0, self._address)
        places = [(self._address + 8 * word, n, offset) for word, n, offset in sources]
        again = self.again
        return launch_words(entry, 0, again, places, ()), (self, again)

    def again(self, _status: int) -> None:
        """A call that was counted and did not run."""
        if self._version != self._slot.version.value:
            self._settle()
        begun = time.perf_counter()
        self._launch.run_by(self._kernel, self._room)
        self._launch.tally.took(time.perf_counter() - begun)

    def _settle(self) -> None:
        """Make ready for the kernel that the slot now says."""
        self._version = self._slot.version.value  # before its kernel is read: a swap in between shows at the next call
        self._kernel, self._room = self._launch.settled()
        self._config[_ENTRY] = self._kernel.binary.address
        self._config[_KNOWN] = _NEVER if self._room else self._version


__all__ = ["HostCall"]
