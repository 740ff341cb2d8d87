"""What a kernel call costs a stack of layers, in closed form (kernel looping, arXiv 2410.23668)."""

from __future__ import annotations


def by_kernel(layers: int, layer: float, sync: float, kernels: int = 1) -> float:
    """Seconds with `kernels` calls a layer: L (t_layer + kernels t_sync)."""
    return layers * (layer + kernels * sync)


def looped(layers: int, layer: float, sync: float) -> float:
    """Seconds with one call for all layers: L t_layer + t_sync."""
    return layers * layer + sync


def sync_of(speedup: float, layers: int, layer: float) -> float:
    """The t_sync for which looping is `speedup` times as fast as one call a layer."""
    return layers * layer * (speedup - 1) / (layers - speedup)
