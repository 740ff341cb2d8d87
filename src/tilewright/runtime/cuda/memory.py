"""Memory on a GPU that launches own, from torch's allocator."""

from __future__ import annotations

from typing import Any

from tilewright.errors import LaunchError


def device_memory(size: int, device: int, *, zeroed: bool) -> Any:
    """A tensor of at least `size` bytes on a device; LaunchError where there is no room."""
    import torch

    make = torch.zeros if zeroed else torch.empty
    try:
        return make(max(size, 1), dtype=torch.uint8, device=f"cuda:{device}")
    except torch.OutOfMemoryError:
        raise LaunchError(f"GPU {device} has no {size} bytes left for scratch; free some") from None


__all__ = ["device_memory"]
