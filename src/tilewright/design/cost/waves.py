"""Blocks on the SMs of a GPU: whole waves, and the last one that fills only a part."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Waves:
    """`count` waves of `slots` blocks each hold `blocks` blocks."""

    blocks: int
    slots: int

    @property
    def count(self) -> int:
        """Waves, the last counted whole."""
        return -(-self.blocks // self.slots) if self.slots else 0

    @property
    def efficiency(self) -> float:
        """Blocks over the places of all waves: 133 blocks on 132 SMs give 133 / 264."""
        return self.blocks / (self.count * self.slots) if self.count else 1.0

    @property
    def fullness(self) -> float:
        """The mean share of the places that the fullest one has work for: 128 blocks on 124 places, two on some."""
        return self.blocks / (self.count * min(self.slots, self.blocks)) if self.count else 1.0


def pipeline_cycles(steps: int, stages: int, load: float, compute: float) -> float:
    """Cycles of a ring of `stages` buffers: `steps` times a load, then a use; loads go ahead while buffers are free.

    One buffer: one after the other. Two or more: the first load, then the slower of both at every step, then the last
    use. More than two hide what varies, which constant times do not show.
    """
    if steps <= 0:
        return 0.0
    if stages < 2:
        return steps * (load + compute)
    return load + (steps - 1) * max(load, compute) + compute


def usable(cores: int, cluster: int) -> int:
    """SMs that clusters can fill: they lie in groups of 16 or 18, and a cluster in one of them."""
    return cores if cluster <= 2 else max(1, (cores - cores // 16) // cluster) * cluster
