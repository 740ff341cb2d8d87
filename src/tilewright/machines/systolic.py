"""Systolic arrays by name: `systolic:ROWSxCOLUMNS:ws|os|is`, and settings behind them, as in
`systolic:32x32:ws:bandwidth=10:buffers=2`.
"""

from __future__ import annotations

import re

from tilewright.errors import MachineError
from tilewright.machines.machine import Atom, Machine, MemoryLevel

PREFIX = "systolic:"
DATAFLOWS = {"ws": "weights", "os": "outputs", "is": "inputs"}
"""Which operand stands still in the cells."""

FORM = "systolic:ROWSxCOLUMNS:ws|os|is, with settings behind it if need be, as in systolic:32x32:ws:bandwidth=10"

SETTINGS: dict[str, str] = {
    "bandwidth": "bytes a cycle from main memory (default: no limit)",
    "buffers": "tiles in the cells: 1, or 2, where the next one is shifted in while one computes (default 1)",
    "fifo": "tiles fetched ahead of the cells (default 1)",
    "clock": "MHz (default 700)",
    "scratch": "KiB of the buffer that operands stream from (default: no limit)",
    "accumulators": "rows of accumulators (default: no limit)",
    "accumulator": "bits of an integer accumulator (default 32)",
}
"""Settings of an array, and what each says."""

_CLOCK_MHZ = 700


def systolic(name: str) -> Machine:
    """The array that `name` describes; MachineError, with the form to use, for a name that describes none."""
    shape, dataflow, *pairs = [*name.removeprefix(PREFIX).split(":"), "ws"][: max(2, name.count(":"))]
    match = re.fullmatch(r"(-?\d+)x(-?\d+)", shape)
    if match is None or dataflow not in DATAFLOWS:
        wrong = f"{shape!r} is not ROWSxCOLUMNS" if match is None else f"{dataflow!r} is none of ws, os, is"
        raise MachineError(f"machine {name!r}: {wrong}; write {FORM}")
    return _array(name, int(match[1]), int(match[2]), dataflow, _settings(name, pairs))


def _settings(name: str, pairs: list[str]) -> dict[str, float]:
    settings = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        try:
            settings[key] = float(value)
        except ValueError:
            raise MachineError(f"machine {name!r}: {pair!r} is not SETTING=NUMBER; write {FORM}") from None
        if key not in SETTINGS:
            known = "; ".join(f"{k}: {says}" for k, says in SETTINGS.items())
            raise MachineError(f"machine {name!r}: no setting is called {key!r}; there are {known}")
        if settings[key] <= 0:
            raise MachineError(f"machine {name!r}: {key} is {value}; give more than 0")
    return settings


def _array(name: str, rows: int, columns: int, dataflow: str, given: dict[str, float]) -> Machine:
    clock = given.get("clock", _CLOCK_MHZ) * 1e6
    scratch = given.get("scratch")
    rate = given["bandwidth"] * clock if "bandwidth" in given else None
    limits = {
        "rows": rows,
        "columns": columns,
        "shadow_weight_tiles": int(given.get("buffers", 1)) - 1,
        "weight_fifo_tiles": int(given.get("fifo", 1)),
        "accumulator_bits": int(given.get("accumulator", 32)),
    }
    if "accumulators" in given:
        limits["accumulator_rows"] = int(given["accumulators"])
    return Machine(
        name,
        "systolic",
        f"systolic-{dataflow}",
        cores=1,
        levels=(
            MemoryLevel("unified_buffer", None if scratch is None else int(scratch * 1024), bandwidth=rate),
            MemoryLevel("weights", bandwidth=rate),
        ),
        atoms=tuple(
            Atom("systolic", dtype, wide, (1, columns, rows), 2.0 * rows * columns)
            for dtype, wide in (("i8", "i32"), ("bf16", "f32"))
        ),
        clock_hz=clock,
        limits=tuple(sorted(limits.items())),
    )


def stationary(machine: Machine) -> str:
    """Which dataflow an array was built for: ws, os or is; ws where its description says nothing."""
    last = machine.architecture.rpartition("-")[2]
    return last if last in DATAFLOWS else "ws"


__all__ = ["DATAFLOWS", "FORM", "PREFIX", "SETTINGS", "stationary", "systolic"]
