"""What a report is about: an operator at fixed sizes on one machine, how much work that is, and what bounds it."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.machines import bandwidth
from tilewright.runtime.measure import last_level_cache_bytes
from tilewright.runtime.subject import Subject
from tilewright.runtime.work import work_of


@dataclass(frozen=True)
class Topic:
    """One search, as a report tells it.

    `flops` operations and `bytes` of operands (each moved once) make a call; `peak` flop/s and `stream` bytes/s are
    what the machine reaches with `threads` threads, None where it is not known; `stream` is also None where the
    operands fit the caches, which trials then find them in. `vendor` names the library that
    computes the same, in `vendor_seconds`.
    """

    operator: str
    sizes: tuple[tuple[str, int], ...]
    dtype: str
    machine: str
    threads: int
    flops: float
    bytes: int
    peak: float | None = None
    stream: float | None = None
    vendor: str = ""
    vendor_seconds: float | None = None

    @property
    def title(self) -> str:
        """`matmul f32  M=512 N=512 K=512`."""
        return f"{self.operator} {self.dtype}  " + " ".join(f"{d}={n}" for d, n in self.sizes)

    @property
    def intensity(self) -> float:
        """Operations for each byte of operands."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def roof_seconds(self) -> float | None:
        """The least time that the machine's rates allow; None where they are not known."""
        if not self.peak or not self.stream:
            return None
        return max(self.flops / self.peak, self.bytes / self.stream)

    @property
    def memory_bound(self) -> bool:
        """Whether moving the operands is what takes the time at best; assumed below two operations a byte."""
        if not self.peak or not self.stream:
            return self.intensity < 2
        return self.bytes / self.stream > self.flops / self.peak

    @property
    def unit(self) -> str:
        """The rate that is worth reading: GB/s where memory bounds, GFLOP/s elsewhere."""
        return "GB/s" if self.memory_bound else "GFLOP/s"

    def rate(self, seconds: float) -> float:
        """A time as a rate in `unit`."""
        return (self.bytes if self.memory_bound else self.flops) / seconds / 1e9

    def of_vendor(self, seconds: float) -> float | None:
        """The vendor's time over `seconds`: 1 is level, above it the vendor is slower; None without a vendor."""
        return None if self.vendor_seconds is None else self.vendor_seconds / seconds


def topic_of(subject: Subject, *, vendor: str = "", vendor_seconds: float | None = None) -> Topic:
    """What a report on `subject` is about. Nothing is measured here."""
    work, machine, kernel = work_of(subject.kernel, subject.sizes), subject.machine, subject.kernel
    dtype = next((p.dtype.name for p in kernel.params if p.dims is not None), "f32")
    peak = machine.peak(dtype) or machine.peak("f32")
    known = bandwidth.remembered(machine, subject.threads) if machine.is_cpu else None
    stream = known.read if known is not None else machine.memory.read or machine.memory.bandwidth
    from_memory = work.bytes > last_level_cache_bytes()
    return Topic(
        kernel.name,
        tuple(subject.sizes.items()),
        dtype,
        machine.name,
        subject.threads,
        work.flops,
        work.bytes,
        None if peak is None else peak * min(1.0, subject.threads / machine.cores),
        stream if from_memory else None,
        vendor,
        vendor_seconds,
    )
