"""Promotion: a kernel that was verified and is faster beyond noise is put in its slot; one that fails is taken out."""

from __future__ import annotations

from tilewright.design.book.record import Record
from tilewright.runtime import rebind
from tilewright.runtime.events import tell
from tilewright.runtime.table import Slot, Special


def worth(record: Record, generic: object) -> str | None:
    """Why a design is not to be swapped in: it was not verified, or is not faster beyond the noise; None if it is."""
    if not record.verified:
        return "its design was not verified here"
    if record.design == generic:
        return "no design is faster than the generic kernel's"
    if not record.seconds * (1 + record.noise) < record.default_seconds:
        return f"the best design is faster by no more than the noise of {record.noise:.1%}"
    return None


def promote(slot: Slot, record: Record) -> bool:
    """Put the kernel of a record in the slot, if it is worth that; each call from now on is answered by it."""
    origin, sizes = slot.origin, dict(record.key.sizes)
    sizes = {d: sizes[d] for d in origin.program.kernel.dims}
    objection = worth(record, origin.generic_design(sizes))
    if objection is None and slot.special is not None and slot.special.kernel.design == record.design:
        objection = f"its kernel is the best of a longer search, design {record.design.hash}"
    if objection is not None:
        keep(slot, objection)
        return False
    kernel = origin.load(slot.place, sizes, record.design)
    special = Special(kernel, tuple(sizes.items()), record.seconds, record.default_seconds)
    told = f"{1e6 * record.default_seconds:.1f} -> {1e6 * record.seconds:.1f} us, design {record.design.hash}"
    slot.swap(special, "specialised", told)
    if kernel.bound_for_good:  # calls that are known by their form are bound to the kernel before
        rebind.forget()
    tell("promote", slot.shape, told)
    return True


def keep(slot: Slot, reason: str) -> None:
    """Leave a slot with the kernel that it has: the generic one, or what an earlier search put there."""
    slot.state, slot.reason = "kept generic" if slot.special is None else "specialised", reason
    tell("keep", slot.shape, reason)


def roll_back(slot: Slot, reason: str) -> None:
    """Answer by the generic kernels again, which are compiled before the swap and not by who calls next."""
    for sizes in slot.met:
        slot.origin.generic(dict(sizes))
    kernel = slot.special.kernel if slot.special is not None else None
    slot.swap(None, "rolled back", reason)
    if kernel is not None and kernel.bound_for_good:
        rebind.forget()
    tell("rollback", slot.shape, reason)


__all__ = ["keep", "promote", "roll_back", "worth"]
