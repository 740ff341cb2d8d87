"""What a process that dies of a bad access says with its last breath: the signal, the address, reading or writing.

The handler is machine code of our own, because Python cannot run in one: it writes three 64-bit words to a file
descriptor, puts the default action back, and returns to the instruction, which faults again and ends the process.
"""

from __future__ import annotations

import ctypes
import platform
import signal
import struct
import sys
from dataclasses import dataclass

from tilewright.build.jit import Target, compile_ir, load

# siginfo_t.si_addr, and in ucontext_t the error code of the page fault (bit 1: a write) where the processor has one.
_ADDRESS_AT = 16
_ERROR_AT = 192 if platform.machine() in ("x86_64", "AMD64") else None
_WORDS = struct.Struct("<3q")
_SA_SIGINFO = 4
SIGNALS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)

_keep: list[object] = []  # code that a signal may still enter


@dataclass(frozen=True)
class Fault:
    """A signal, the address at fault, and whether it was written to (False also where that is not known)."""

    signal: int
    address: int
    write: bool


def install(descriptor: int) -> None:
    """Report faults of any thread of this process to `descriptor` before they end it (on Linux; nothing elsewhere)."""
    if sys.platform != "linux":
        return
    library = load(compile_ir(_handler(descriptor), Target.host()))
    _keep.append(library)
    libc = ctypes.CDLL(None, use_errno=True)
    action = ctypes.create_string_buffer(256)  # struct sigaction: the handler, a mask, flags behind it
    struct.pack_into("<Q", action, 0, library.address("tw_fault"))
    struct.pack_into("<i", action, 8 + 128, _SA_SIGINFO)
    for number in SIGNALS:
        libc.sigaction(int(number), action, None)


def read(data: bytes) -> Fault | None:
    """The first fault of what a process has written; None if it wrote none."""
    if len(data) < _WORDS.size:
        return None
    number, address, error = _WORDS.unpack_from(data)
    return Fault(number, address & (1 << 64) - 1, bool(error & 2))


def _handler(descriptor: int) -> str:
    error = "  store i64 0, ptr %w2\n"
    if _ERROR_AT is not None:
        error = (
            f"  %e = getelementptr i8, ptr %context, i64 {_ERROR_AT}\n"
            "  %ev = load i64, ptr %e\n  store i64 %ev, ptr %w2\n"
        )
    return f"""
declare i64 @write(i32, ptr, i64)
declare ptr @signal(i32, ptr)
define void @tw_fault(i32 %number, ptr %info, ptr %context) {{
  %words = alloca [3 x i64]
  %w1 = getelementptr i64, ptr %words, i64 1
  %w2 = getelementptr i64, ptr %words, i64 2
  %n = sext i32 %number to i64
  store i64 %n, ptr %words
  %a = getelementptr i8, ptr %info, i64 {_ADDRESS_AT}
  %av = load i64, ptr %a
  store i64 %av, ptr %w1
{error}  %d = call i64 @write(i32 {descriptor}, ptr %words, i64 {_WORDS.size})
  %s = call ptr @signal(i32 %number, ptr null)
  ret void
}}
"""


__all__ = ["SIGNALS", "Fault", "install", "read"]
