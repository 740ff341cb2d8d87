"""The worker of a GPU, in which some designs become kernels that trap or hang: MISBEHAVING says which, by hash."""

from __future__ import annotations

import json
import os
from functools import cache
from typing import Any

from tilewright.build.nvrtc import compile_cuda
from tilewright.runtime.cuda import driver
from tilewright.runtime.cuda.dispatch import machine
from tilewright.runtime.cuda.streams import stream_of
from tilewright.runtime.cuda.trial_worker import Call, CudaGpu, main

SECONDS = 20  # a kernel that hangs ends at last, should nobody kill it
_HEAD = 'struct Argument { unsigned long long word; };\nextern "C" __global__ void bad(const Argument argument)'
_NOW = 'asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));'
KERNELS = {
    "trap": _HEAD + ' { asm volatile("trap;"); }',
    "stray": _HEAD + " { *(volatile int*)argument.word = 1; }",
    "hang": f"{_HEAD} {{ unsigned long long now, end; {_NOW} end = now + {SECONDS}000000000ull;\n"
    f"  while (now < end) {{ {_NOW} }} }}",
}


@cache
def bad(how: str) -> driver.Call:
    """The launch of a kernel that misbehaves; one that strays writes to address 64."""
    compiled = compile_cuda(KERNELS[how], "bad", machine(0).architecture)
    function = driver.load(compiled.cubin, "bad", 0, 32, 0, 1)
    argument = driver.argument_memory(8)
    argument[0] = 64
    return driver.Call("bad", function, argument, 1, 32, 0, 1, False)


class Endless:
    """More bytes than any GPU has: its scratch memory is asked for by the allocator of all other operands."""

    nbytes = 1 << 44


class Misbehaving(CudaGpu):
    """A real device; the kernels of some designs are replaced."""

    def bind(self, request: Any, held: Any, scalars: Any, sizes: Any) -> Call:
        right = super().bind(request, held, scalars, sizes)
        how = json.loads(os.environ["MISBEHAVING"]).get(request.design.hash)
        if how == "large":
            self.hold(Endless())
        return right if how is None else lambda: bad(how)(stream_of(0))


if __name__ == "__main__":
    main(Misbehaving)
