"""What a CUDA graph capture that failed leaves behind in torch, and how the next test is kept from it."""

from __future__ import annotations

import torch


def mend() -> None:
    """Leave the stream of a capture, and give torch's generator a new state where its own still waits for a graph."""
    if not torch.cuda.is_initialized():
        return
    if torch.cuda.current_stream() != torch.cuda.default_stream():
        torch.cuda.set_stream(torch.cuda.default_stream())
    try:
        torch.empty(1, device="cuda").random_()
    except RuntimeError:
        fresh = torch.Generator(device="cuda")
        torch.cuda.default_generators[torch.cuda.current_device()].graphsafe_set_state(fresh.graphsafe_get_state())
