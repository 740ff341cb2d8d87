"""Who an x86 processor is: what its `cpuid` instruction answers."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

_CPUID = """
define void @cpuid(i32 %leaf, ptr %out) {
  %r = call { i32, i32, i32, i32 } asm sideeffect "cpuid", "={ax},={bx},={cx},={dx},{ax},{cx}"(i32 %leaf, i32 0)
  %a = extractvalue { i32, i32, i32, i32 } %r, 0
  %b = extractvalue { i32, i32, i32, i32 } %r, 1
  %c = extractvalue { i32, i32, i32, i32 } %r, 2
  %d = extractvalue { i32, i32, i32, i32 } %r, 3
  store i32 %a, ptr %out
  %p1 = getelementptr i32, ptr %out, i32 1
  store i32 %b, ptr %p1
  %p2 = getelementptr i32, ptr %out, i32 2
  store i32 %c, ptr %p2
  %p3 = getelementptr i32, ptr %out, i32 3
  store i32 %d, ptr %p3
  ret void
}
"""
_VENDORS = {b"AuthenticAMD": "amd", b"GenuineIntel": "intel", b"HygonGenuine": "amd"}


def cpuid() -> dict[str, Any]:
    """Vendor, family, model and brand of the processor, on any operating system."""
    from tilewright.machines._jit import Compiled

    code = Compiled(_CPUID)
    ask = code.function("cpuid", ctypes.c_uint32, ctypes.c_void_p)
    out = ctypes.create_string_buffer(16)

    def leaf(number: int) -> bytes:
        ask(number, out)
        return out.raw

    maker = leaf(0)
    signature = struct.unpack("<I", leaf(1)[:4])[0]
    family, model = signature >> 8 & 15, signature >> 4 & 15
    if family in (6, 15):
        model |= signature >> 12 & 0xF0
    if family == 15:
        family += signature >> 20 & 0xFF
    has_brand = struct.unpack("<I", leaf(0x80000000)[:4])[0] >= 0x80000004
    brand = b"".join(leaf(0x80000002 + i) for i in range(3)) if has_brand else b""
    vendor = maker[4:8] + maker[12:16] + maker[8:12]
    return {
        "vendor": _VENDORS.get(vendor, vendor.decode("ascii", "replace").lower().strip("\0 ") or "unknown"),
        "family": family,
        "model": model,
        "brand": brand.split(b"\0")[0].decode("ascii", "replace").strip(),
    }


__all__ = ["cpuid"]
