"""Tensor parallel steps on several GPUs: what each GPU holds, and what they tell each other over NVLink."""

from __future__ import annotations

from tilewright.errors import ArgumentError
from tilewright.machines.machine import Machine
from tilewright.simulate.chips.collectives import NCCL_RING, Link, all_gather_seconds, seconds
from tilewright.simulate.decoder import Decoder
from tilewright.simulate.gpu.calls import Step

MEASURED_LATENCY, MEASURED_BANDWIDTH, MEASURED_CHIPS = 39.7e-6, 459e9, 8
"""Of all-reduces on 8 H200s (NVLink of 900 GB/s), called from the host: the two parameters of a ring that fit best."""

_MEASURED_LINK = 900e9


def link_of(machine: Machine, latency: float | None = None) -> Link:
    """How GPUs of this kind reach each other: as 8 H200s do, at the rate of their own NVLink.

    `latency` is that of an all-reduce of nothing over 8 GPUs (seconds), for those that no host calls: NCCL's own
    model gives 15 us. ArgumentError for a GPU without NVLink.
    """
    stated = dict(machine.limits).get("link_bytes_per_s")
    if not stated:
        raise ArgumentError(
            f"{machine.name} has no NVLink in its description, so that several of them do not share a model here; "
            f"leave --chips out, or give a .json description with link_bytes_per_s among its limits"
        )
    hop = NCCL_RING["LL"][1]
    hops = 2 * (MEASURED_CHIPS - 1) * hop
    base = max(0.0, (MEASURED_LATENCY if latency is None else latency) - hops)
    return Link(MEASURED_BANDWIDTH * float(stated) / _MEASURED_LINK, hop, base)


def collective_seconds(model: Decoder, step: Step, chips: int, link: Link) -> float:
    """Seconds of a step's collectives, all in rings: two all-reduces a layer, and one gathering of the logits.

    Of a prompt, the last layer's all-reduces are of the last token of each sequence.
    """
    if chips == 1:
        return 0.0

    def reduced(rows: int) -> float:
        return seconds("ring", chips, rows * model.hidden * model.bytes, link)

    rows = step.batch * step.tokens
    reduces = 2 * (model.layers - 1) * reduced(rows) + 2 * reduced(step.batch)
    return reduces + all_gather_seconds(chips, 4.0 * step.batch * model.vocab, link)


__all__ = ["collective_seconds", "link_of"]
