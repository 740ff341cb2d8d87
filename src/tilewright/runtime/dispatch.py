"""From operands to a launch: which kernel, compiled if need be, tied to the memory it works on."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from tilewright.build.kernel_cache import Request, build
from tilewright.design.atoms import TILED
from tilewright.design.book.record import Record
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.emit import abi
from tilewright.errors import BookWarning, CompileError, IllegalDesign, LaunchError, MachineError
from tilewright.knobs import Knobs, knobs
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS
from tilewright.runtime import debug, modes, pool
from tilewright.runtime.buckets import Exact, Place, nearest_of, placed, range_of, shape_of
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.launch import PROTOTYPE, Dispatch, Dispatched, Kernel, Launch
from tilewright.runtime.layouts import Layouts, facts_of, layout_of, layouts_of
from tilewright.runtime.monitor import MONITOR
from tilewright.runtime.operands import scalar_of
from tilewright.runtime.program import Program, described, whole_dims
from tilewright.runtime.table import TABLE, Slot, Special

if TYPE_CHECKING:
    from tilewright.runtime.cuda.follow import Following

MOST_KERNELS = 2048
"""Generic kernels, and designs of the book, that are kept in memory."""


def bind(
    operator: Any, buffers: Mapping[str, Buffer], scalars: Mapping[str, float | int], options: Mapping[str, object]
) -> Launch | debug.Timed | Following:
    """`operator` on these operands, by the best kernel known for their sizes.

    Tensors that are absent are left out of `buffers`; `options` are the operator's static ones.
    Operands on a GPU run there; ArgumentError where they lie on several devices.
    """
    program, sizes = described(operator, buffers, options)
    scalars = {p.name: scalar_of(program.kernel, p, scalars) for p in program.kernel.params if p.dims is None}
    if any(b.device != "cpu" for b in buffers.values()):
        from tilewright.runtime.cuda import dispatch as gpu  # a program on the cpu never pays for it

        return gpu.bind(operator, program, buffers, scalars, sizes, options)
    layouts, best = layouts_of(buffers)
    settings = knobs()
    slot = slot_of(Origin(program, best, operator, tuple(sorted(options.items()))), sizes, settings)
    launch = _dispatched(slot, layouts, buffers, scalars, sizes, settings.numerics)
    return launch if settings.debug < 2 else debug.timed(launch, buffers, sizes)


# ------------------------------------------------------------------------------------------ kernels
_kernels: dict[tuple[Program, Layouts, tuple[tuple[str, int], ...]], Kernel] = {}
_by_design: dict[tuple[Program, Layouts, tuple[tuple[str, int], ...], Design], Kernel] = {}
_listed: dict[Program, frozenset[Exact]] = {}  # sizes that the book has designs for
_compiling = threading.Lock()


@dataclass(frozen=True, eq=False)
class Origin:
    """What a slot is about: the program and how its operands lie, and the call that it was traced from."""

    program: Program
    layouts: Layouts
    operator: Any
    options: tuple[tuple[str, object], ...]

    device = "cpu"
    ranges = staticmethod(range_of)

    def searched(self, slot: Slot) -> Exact:
        """The sizes that a search for a slot is made at: those whose calls took the most time."""
        return slot.common

    looks = False
    """Whether first looks are taken at its slots: not where the generic design is the default one."""

    def key(self, place: Place, settings: Knobs) -> Hashable:
        """What tells its slots apart."""
        pinned, threads = settings.numerics, pool.available_threads()
        return self.program, self.layouts, place, settings.mode == "generic", pinned, threads

    def listed(self) -> frozenset[Exact]:
        """The sizes that the book has designs for; it is read once for each program."""
        found = _listed.get(self.program)
        if found is None:
            from tilewright.runtime.chosen import sizes_of

            found = _listed[self.program] = sizes_of(self.program.kernel, machine())
        return found

    def nearest(self, place: Place, sizes: Mapping[str, int]) -> list[Exact]:
        """Sizes in the book whose design may serve a place, the likeliest first."""
        return nearest_of(place, sizes, self.listed())

    def record(self, sizes: dict[str, int]) -> Record | None:
        """What the book holds for these sizes."""
        from tilewright.runtime.chosen import record_for

        return record_for(self.program.kernel, facts_of(self.layouts, sizes, machine()), pool.available_threads())

    def generic(self, sizes: dict[str, int]) -> Kernel:
        """The generic kernel for these sizes."""
        return _kernel(self.program, self.layouts, self.program.significant(sizes))

    def generic_design(self, sizes: dict[str, int]) -> Design:
        """Its design."""
        return self.request(sizes).design

    def request(self, sizes: dict[str, int], design: Design | None = None) -> Request:
        """What has to be built for a design (the generic one) at these sizes."""
        return requested(self.program, self.layouts, sizes, machine(), design)

    def load(self, _place: Place, sizes: dict[str, int], design: Design, shared: bool = False) -> Kernel:
        """The kernel of a design at these sizes: one that lives as long as the process, or its slot's alone."""
        request = self.request(sizes, design)
        return _shared(request, self.program) if shared else compiled(self.program, request)

    def job(self, _sizes: dict[str, int]) -> dict[str, Any] | None:
        """What another process has to know to draw operands like these and try designs; None where it could not."""
        unit = {n: x.strides.index(1) for n, x in self.layouts if 1 in x.strides}
        if len(unit) < len(self.layouts):
            return None
        return {**told_of(self), "machine": machine().to_dict(), "unit": unit, "threads": pool.available_threads()}


def told_of(origin: Any) -> dict[str, Any]:
    """What a job says of a program, whatever it runs on."""
    known = OPERATORS.get(origin.operator.name) is origin.operator if hasattr(origin.operator, "name") else False
    return {
        "kernel": origin.program.text,
        "operator": origin.operator.name if known else None,
        "options": [list(pair) for pair in origin.options],
        "numerics": knobs().numerics,
    }


def slot_of(origin: Any, sizes: dict[str, int], settings: Knobs) -> Slot:
    """The slot of a call: that of its very sizes where the book has a design for them, else of their ranges.

    `origin` says what differs between machines: an `Origin`, or a `GpuOrigin`.
    """
    program, exact = origin.program, tuple(sizes.items())
    place = exact if exact in origin.listed() else placed(sizes, program.ranged, origin.ranges)
    key = origin.key(place, settings)
    slot = TABLE.get(key)
    if slot is None:
        slot = Slot(key, shape_of(program.kernel, sizes, origin.device), place, origin)
        _ask_the_book(slot, sizes)
        slot = TABLE.add(slot)
    return slot


def _ask_the_book(slot: Slot, sizes: dict[str, int]) -> None:
    """Let a new slot begin with the design that the book holds for its sizes, or for sizes in its ranges."""
    for known in slot.origin.nearest(slot.place, sizes):
        record = slot.origin.record(dict(known))
        if record is not None and _taken_from_the_book(slot, known, record):
            return


def _taken_from_the_book(slot: Slot, known: Exact, record: Record) -> bool:
    """Whether the design of a record is put into a new slot, or is the generic one; not if the compiler refuses it."""
    origin, at = slot.origin, dict(known)
    slot.fixed = True
    if record.design == origin.generic_design(at):
        slot.state, slot.reason = "kept generic", "the book holds no better design than the generic kernel's"
        return True
    try:
        with _compiling:
            kernel = origin.load(slot.place, at, record.design, shared=True)
    except (IllegalDesign, CompileError, LaunchError) as error:
        warnings.warn(
            f"a design of the book for {origin.program.kernel.name} is not used: {error}", BookWarning, stacklevel=4
        )
        return False
    slot.special = Special(kernel, known, record.seconds, record.default_seconds)
    slot.state, slot.reason = "specialised", "the book holds a design for its sizes"
    return True


def _dispatched(
    slot: Slot,
    layouts: Layouts,
    buffers: Mapping[str, Buffer],
    scalars: Mapping[str, float | int],
    sizes: dict[str, int],
    numerics: str,
) -> Dispatched:
    """A launch that follows its slot; one whose operands lie less well than they could takes no kernel that minds."""
    strict = layouts != slot.origin.layouts
    origin = replace(slot.origin, layouts=layouts) if strict else slot.origin
    pinned = origin.request(sizes).design if numerics == "pinned" else None
    how = Dispatch(slot, partial(origin.generic, sizes), sizes, pinned)
    special = slot.special
    kernel = how.kernel(special, strict)
    launch = kernel.bind(buffers, scalars, sizes)
    return Dispatched(launch, special, how, MONITOR.counter(slot.shape), kernel.work(buffers, sizes), strict)


def forget_chosen() -> None:
    """Read the book again: it has changed."""
    from tilewright.runtime import chosen, rebind
    from tilewright.runtime.cuda import dispatch as gpu

    chosen.forget()
    gpu.forget_chosen()
    TABLE.clear()
    _listed.clear()
    rebind.forget()


def _kernel(program: Program, layouts: Layouts, sizes: tuple[tuple[str, int], ...]) -> Kernel:
    """The kernel for these sizes: the design they call for, compiled once however many sizes share it."""
    key = (program, layouts, sizes)
    found = _kernels.get(key)
    if found is None:
        with _compiling:
            found = _kernels.get(key) or _designed(program, layouts, dict(sizes))
            _bounded(_kernels)[key] = found
    return found


def _designed(program: Program, layouts: Layouts, sizes: dict[str, int]) -> Kernel:
    return _shared(requested(program, layouts, sizes, machine()), program)


def _shared(request: Request, program: Program) -> Kernel:
    key = (program, request.layouts, request.sizes, request.design)
    if key not in _by_design:
        _bounded(_by_design)[key] = compiled(program, request)
    return _by_design[key]


def _bounded(known: dict[Any, Kernel]) -> dict[Any, Kernel]:
    """Make room for one more: what was needed first is found on disk if it is needed again."""
    while len(known) >= MOST_KERNELS:
        del known[next(iter(known))]
    return known


def requested(
    program: Program, layouts: Layouts, sizes: dict[str, int], known: Machine, design: Design | None = None
) -> Request:
    """What has to be built for these sizes on `known`: by `design`, or by the default one that they call for."""
    if design is None:
        design = default_design(program.kernel, facts_of(layouts, dict(program.significant(sizes)), known))
    if not any(name.startswith("nontemporal.") for name, _ in design.decisions):
        layouts = tuple((n, abi.TensorLayout(x.strides)) for n, x in layouts)  # nothing relies on alignment
    return Request(program.kernel, design, layouts, tuple((d, sizes[d]) for d in program.whole))


def compiled(program: Program, request: Request, known: Machine | None = None) -> Kernel:
    """The kernel of a request for `known` (this machine), from the cache on disk or from the compiler."""
    _ask_for_tiles(request.design)
    known = known or machine()
    binary = build(request, known, debug.observer(known))
    modes.count(binary.seconds)
    name, entry = request.kernel.name, PROTOTYPE(binary.address)
    return Kernel(name, request.kernel, request.design, binary, program.multiplications, entry)


@cache
def _tiles_granted() -> bool:
    from tilewright.machines import x86

    return x86.request_amx()


def _ask_for_tiles(design: Design) -> None:
    """Linux gives a process the tile registers of AMX only if asked; using them unasked kills it."""
    wanted = any(choice in TILED for _, choice in design.prefixed("atom"))
    if wanted and not _tiles_granted():
        raise MachineError("the system does not let this process use AMX tiles; set TILEWRIGHT_MACHINE=x86-avx512")


def machine() -> Machine:
    """The machine that kernels are compiled for: this one, or what TILEWRIGHT_MACHINE names.

    As the settings and the affinity of now have it, which detection remembers by: the book's keys must follow them.
    """
    return Machine.detect()


# ------------------------------------------------------------------------------------------ calls
def kernels() -> tuple[Kernel, ...]:
    """Every kernel in use, in the order in which they were first needed."""
    return tuple(_by_design.values())


def _after_fork() -> None:
    """A child is alone: locks that other threads of its parent held would never be released."""
    global _compiling
    _compiling = threading.Lock()
    TABLE.after_fork()
    MONITOR.after_fork()


os.register_at_fork(after_in_child=_after_fork)

__all__ = [
    "MOST_KERNELS", "TABLE", "Dispatched", "Kernel", "Launch", "Layouts", "Origin", "Program",
    "bind", "compiled", "described", "facts_of", "forget_chosen", "kernels", "layout_of", "machine", "requested",
    "whole_dims",
]  # fmt: skip
