"""What a user asks about calls on a GPU: which kernel answers, and the calls of a recorded trace run again there."""

from __future__ import annotations

import torch

from tilewright import ops
from tilewright.observe.record import Recorder
from tilewright.observe.replay import replay
from tilewright.observe.why import why

SIZES = {"M": 24, "N": 64, "K": 128}


def test_why_names_the_kernel_that_a_call_gets():
    answer = why("matmul", SIZES, "bf16", device="cuda")
    assert str(answer.row.shape) == "matmul batch=17-64 bf16 cuda:0"
    assert answer.row.design is None and len(answer.decisions) > 2
    launch = ops.linear.bind(
        torch.zeros(24, 128, device="cuda", dtype=torch.bfloat16),
        torch.zeros(64, 128, device="cuda", dtype=torch.bfloat16),
        out=torch.empty(24, 64, device="cuda", dtype=torch.bfloat16),
    )
    assert launch.kernel.design.hash == answer.design


def test_a_recorded_trace_is_replayed_on_its_gpu():
    x, w = (torch.randn(n, 128, device="cuda").bfloat16() for n in (24, 64))
    recorder = Recorder()
    with recorder.recording():
        for _ in range(3):
            ops.linear(x, w)
    torch.cuda.synchronize()
    (found,) = replay(recorder.trace())
    assert (found.call.device, dict(found.call.sizes), found.runs) == ("cuda", SIZES, 3)
    assert found.first_seconds > 0 and found.seconds > 0
