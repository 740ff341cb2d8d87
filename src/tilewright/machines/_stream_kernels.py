"""LLVM IR of the memory kernels that measure bandwidth: sum what is read, copy, copy past the caches."""

from __future__ import annotations

from dataclasses import dataclass

LINE = 64  # bytes of a cache line


@dataclass(frozen=True)
class StreamKernel:
    """One way to go through memory.

    `operation` is read, copy or copy_nontemporal; the part of one thread is cut into `streams` that
    advance together, each by `step` bytes an iteration, in vectors of `bits`; `ahead` is how many
    bytes before their use lines are prefetched (0: never, the hardware does).
    """

    operation: str
    bits: int
    streams: int
    step: int
    ahead: int = 0

    @property
    def ir(self) -> str:
        """`void @kernel(ptr source, ptr target, i64 bytes, i64 passes)`: goes `passes` times through memory.

        `bytes` is a multiple of `streams * step` and pointers are aligned to lines. A read stores one
        vector, the sum, at `target`; a copy fills `target`.
        """
        return _Writer(self).text()


class _Writer:
    """Writes the IR of one kernel."""

    def __init__(self, kernel: StreamKernel) -> None:
        self.kernel = kernel
        self.vector = f"<{kernel.bits // 32} x i32>"
        self.size = kernel.bits // 8
        self.reads = kernel.operation == "read"
        self.sums = range(kernel.streams * (kernel.step // self.size)) if self.reads else range(0)

    def text(self) -> str:
        v, k = self.vector, self.kernel
        outer = "\n".join(f"  %all{i} = phi {v} [zeroinitializer, %entry], [%next{i}, %pass.end]" for i in self.sums)
        inner = "\n".join(f"  %sum{i} = phi {v} [%all{i}, %pass], [%next{i}, %loop]" for i in self.sums)
        bases = "\n".join(f"  %base{s} = mul i64 %part, {s}" for s in range(k.streams))
        return f"""
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
define void @kernel(ptr noalias %source, ptr noalias %target, i64 %bytes, i64 %passes) {{
entry:
  %part = udiv i64 %bytes, {k.streams}
{bases}
  br label %pass
pass:
  %done = phi i64 [0, %entry], [%done.next, %pass.end]
{outer}
  br label %loop
loop:
  %at = phi i64 [0, %pass], [%at.next, %loop]
{inner}
{self._body()}
  %at.next = add i64 %at, {k.step}
  %more = icmp ult i64 %at.next, %part
  br i1 %more, label %loop, label %pass.end
pass.end:
  %done.next = add i64 %done, 1
  %again = icmp ult i64 %done.next, %passes
  br i1 %again, label %pass, label %exit
exit:
{self._end()}
  ret void
}}
!0 = !{{i32 1}}
"""

    def _body(self) -> str:
        """One step of every stream."""
        lines: list[str] = []
        k, index = self.kernel, 0
        for s in range(k.streams):
            lines.append(f"  %offset{s} = add i64 %base{s}, %at")
            lines += [self._prefetch(s, byte) for byte in range(0, k.step, LINE) if k.ahead]
            for byte in range(0, k.step, self.size):
                lines += self._vector_step(s, byte, index)
                index += 1
        return "\n".join(lines)

    def _vector_step(self, stream: int, byte: int, index: int) -> list[str]:
        v = self.vector
        lines = [
            f"  %o{index} = add i64 %offset{stream}, {byte}",
            f"  %p{index} = getelementptr i8, ptr %source, i64 %o{index}",
            f"  %v{index} = load {v}, ptr %p{index}, align {self.size}",
        ]
        if self.reads:
            return [*lines, f"  %next{index} = add {v} %sum{index}, %v{index}"]
        hint = ", !nontemporal !0" if self.kernel.operation == "copy_nontemporal" else ""
        return [
            *lines,
            f"  %q{index} = getelementptr i8, ptr %target, i64 %o{index}",
            f"  store {v} %v{index}, ptr %q{index}, align {self.size}{hint}",
        ]

    def _prefetch(self, stream: int, byte: int) -> str:
        name = f"%f{stream}.{byte}"
        return (
            f"  {name}.o = add i64 %offset{stream}, {byte + self.kernel.ahead}\n"
            f"  {name} = getelementptr i8, ptr %source, i64 {name}.o\n"
            f"  call void @llvm.prefetch.p0(ptr {name}, i32 0, i32 3, i32 1)"
        )

    def _end(self) -> str:
        if not self.reads:  # the fence also waits for stores that went past the caches
            return "  fence seq_cst"
        v, total = self.vector, "%next0"
        lines = []
        for i in self.sums[1:]:
            lines.append(f"  %total{i} = add {v} {total}, %next{i}")
            total = f"%total{i}"
        return "\n".join([*lines, f"  store {v} {total}, ptr %target, align {self.size}"])
