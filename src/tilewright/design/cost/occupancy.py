"""How many blocks one SM of an NVIDIA GPU holds, by the vendor's allocation rules (cuda_occupancy.h)."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.machines.machine import Machine

_WARP, _REGISTERS, _UNIT, _SHARED_UNIT, _RESERVED = 32, 65536, 256, 128, 1024


@dataclass(frozen=True)
class Limits:
    """What one SM has: warps, blocks, bytes of shared memory."""

    warps: int
    blocks: int
    shared: int


BY_CAPABILITY = {
    "8.0": Limits(64, 32, 164 << 10),
    "8.6": Limits(48, 16, 100 << 10),
    "8.9": Limits(48, 24, 100 << 10),
    "9.0": Limits(64, 32, 228 << 10),
    "10.0": Limits(64, 32, 228 << 10),
    "12.0": Limits(48, 24, 100 << 10),
}


def limits_of(machine: Machine) -> Limits:
    """The limits of one SM of `machine`; MachineError where it states none."""
    return Limits(
        int(machine.limit("max_warps_per_sm")),
        int(machine.limit("max_blocks_per_sm")),
        int(machine.limit("shared_bytes_per_sm")),
    )


def blocks_per_sm(limits: Limits, threads: int, registers: int, shared: int) -> int:
    """Blocks of `threads` threads, `registers` a thread and `shared` bytes a block that one SM holds at once; 0: none.

    Registers are given out by warps in units of 256, shared memory in units of 128 bytes of which a block pays 1 KiB
    to the system.
    """
    warps = -(-threads // _WARP)
    by_warps = limits.warps // warps
    return min(by_warps, limits.blocks, _by_registers(warps, registers), _by_shared(limits, shared))


def _by_registers(warps: int, registers: int) -> int:
    """Four schedulers share the registers, and a warp's lie at one of them."""
    each = -(-_WARP * registers // _UNIT) * _UNIT
    if each * (-(-warps // 4) * 4) > _REGISTERS:
        return 0
    return (_REGISTERS // 4 // each) * 4 // warps


def _by_shared(limits: Limits, shared: int) -> int:
    if shared > limits.shared - _RESERVED:
        return 0
    return limits.shared // (-(-(shared + _RESERVED) // _SHARED_UNIT) * _SHARED_UNIT)
