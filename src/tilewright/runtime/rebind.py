"""Launches kept by the form of their operands: the same call on other memory needs only new pointers.

What a binding depends on beside the form of a call (`form`) is checked at each call: that nothing written shares memory
with an operand, and alignment where the kernel relies on it. A call that does not pass is bound anew, which says what
is wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from tilewright.language import ir
from tilewright.runtime import record
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.form import Form, forget, is_torch_kind

MOST = 256
"""Forms that one thread keeps for one op; the one that was not met for longest makes room, of records the first."""

_LINE = 64


class Launch(Protocol):
    """A bound kernel, on a CPU or a GPU, whose pointers can be exchanged."""

    words: Any
    operands: Mapping[str, Buffer]

    @property
    def program(self) -> ir.Kernel:
        """What it computes."""
        ...

    @property
    def relies_on_alignment(self) -> bool:
        """Whether its kernel is right only where pointers lie as they did when it was bound."""
        ...

    def pointer_word(self, name: str) -> int:
        """The word that holds the pointer of a tensor."""
        ...

    def detached(self) -> Launch:
        """The same launch with words of its own, which keeps no operand alive."""
        ...

    def __call__(self) -> None: ...


Sources = Sequence[tuple[int, int, int]]
"""Where the pointers of a launch come from: (word, number of the tensor, bytes from its start)."""

Pair = tuple[int, int, int, int, int, int]
"""(tensor, first byte, end) of two tensors that must share no memory."""

Fresh = tuple[Callable[..., Any], tuple[Any, ...]]
"""What makes a result, and its arguments."""


# ------------------------------------------------------------------------------------------ rebinding
@dataclass(frozen=True, slots=True)
class Rebound:
    """The launches of one form of call. Tensors are numbered: operands in the order of the call, then new results."""

    parts: tuple[tuple[Launch, Sources], ...]  # launches of their own
    fresh: tuple[Fresh, ...]
    results: tuple[int, ...]
    several: bool  # whether the call gives a tuple
    apart: tuple[Pair, ...]
    low_bits: tuple[int, ...]  # of each address, where a kernel relies on alignment; else empty

    def run(self, form: Form) -> tuple[bool, Any]:
        """(whether it ran, the result). It does not run where memory overlaps or lies less well than before."""
        tensors, pointers = form.tensors, form.pointers
        for a, low, high, b, other_low, other_high in self.apart:
            if pointers[a] + low < pointers[b] + other_high and pointers[b] + other_low < pointers[a] + high:
                return False, None
        for make, arguments in self.fresh:
            made = make(*arguments)
            tensors.append(made)
            pointers.append(made.__array_interface__["data"][0] if type(made) is np.ndarray else made.data_ptr())
        if self.low_bits and any(p % _LINE != low for p, low in zip(pointers, self.low_bits, strict=True)):
            return False, None
        for launch, sources in self.parts:
            words = launch.words
            for word, tensor, offset in sources:
                words[word] = pointers[tensor] + offset
            launch()
        if self.several:
            return True, tuple([tensors[n] for n in self.results])
        return True, tensors[self.results[0]]


def rebound(form: Form, launches: Sequence[Any], result: Any) -> Rebound | None:
    """What a bound call, whose operands had this form, needs on other memory; None where it has to be bound anew."""
    several = isinstance(result, tuple)
    results = result if several else (result,)
    if form.key is None or not all(hasattr(launch, "pointer_word") for launch in launches):
        return None
    tensors = [*form.tensors, *(r for r in results if not any(r is x for x in form.tensors))]
    tensors += _between(launches, tensors)
    buffers = [Buffer.of(x) for x in tensors]
    numbers = {id(x): n for n, x in reversed(list(enumerate(tensors)))}
    parts = []
    written: set[int] = set()
    for launch in launches:
        if not all(id(b.owner) in numbers for b in launch.operands.values()):
            return None
        places = {name: numbers[id(b.owner)] for name, b in launch.operands.items()}
        parts.append(_part(launch, places, buffers))
        written |= {places[name] for name in _stored(launch.program) if name in places}
    given = len(form.tensors)
    return Rebound(
        tuple(parts),
        tuple(_fresh(x) for x in tensors[given:]),
        tuple(numbers[id(r)] for r in results),
        several,
        tuple(_apart(buffers[:given], written)),
        tuple(b.pointer % _LINE for b in buffers) if any(x.relies_on_alignment for x in launches) else (),
    )


def _between(launches: Sequence[Launch], known: Sequence[Any]) -> list[Any]:
    """Tensors that one launch writes first and a later one reads: made anew for each call, as results are."""
    met, found = {id(x) for x in known}, []
    for launch in launches:
        written = set(_stored(launch.program))
        for name, buffer in launch.operands.items():
            if id(buffer.owner) not in met and name in written:
                found.append(buffer.owner)
            met.add(id(buffer.owner))
    return found


def _part(launch: Launch, places: dict[str, int], buffers: list[Buffer]) -> tuple[Launch, Sources]:
    sources = tuple(
        (launch.pointer_word(name), places[name], b.pointer - buffers[places[name]].pointer)
        for name, b in launch.operands.items()
    )
    return launch.detached(), sources


def _fresh(x: Any) -> Fresh:
    """What makes a result like `x`: the quickest way, which in torch is its compiler's own, of half the time."""
    shape = tuple(x.shape)
    if not is_torch_kind(type(x)):
        return np.empty, (shape, x.dtype)
    import torch

    guards = getattr(getattr(torch._C, "_dynamo", None), "guards", None)
    if x.is_cpu:
        make = getattr(guards, "_empty_strided_cpu", None)
    else:  # it takes the current GPU
        make = getattr(guards, "_empty_strided_cuda", None) if torch.cuda.device_count() == 1 else None
    if make is not None:
        return make, (shape, x.stride(), x.dtype)
    return partial(torch.empty, dtype=x.dtype, device=x.device), (shape,)


def _stored(program: ir.Kernel) -> set[str]:
    return {s.ref.buffer for s in ir.walk(program.body) if isinstance(s, ir.Store)}


def _apart(given: list[Buffer], written: set[int]) -> Iterable[Pair]:
    """What must not overlap: each operand that is written, and all others. New results have memory of their own."""
    ranges = [(low - b.pointer, high - b.pointer) for b in given for low, high in (b.span,)]
    for a in sorted(written):
        for b in range(len(given)):
            if a < len(given) and given[a].owner is not given[b].owner and not (b in written and b < a):
                yield a, *ranges[a], b, *ranges[b]


class Rebinding(threading.local):
    """The forms of one op that this thread has met, with what runs them: a record for compiled code, or in Python.

    What runs in Python is taken out while it runs, as its words are written to.
    """

    def __init__(self) -> None:
        self.known: dict[Hashable, Rebound | record.Recorded] = {}

    def run(self, form: Form) -> tuple[bool, Any]:
        """(whether the call was known and ran, its result). Compiled code has had its turn: it found an overlap."""
        known = self.known.pop(form.key, None)
        if not isinstance(known, Rebound):
            return False, None
        ran = known.run(form)
        self.known[form.key] = known
        return ran

    def keep(self, form: Form, launches: Sequence[Any], result: Any) -> None:
        """Remember how a call of this form is bound; not one that is captured, whose memory belongs to a graph."""
        found = None if form.captured else rebound(form, launches, result)
        if found is None:
            return
        self.known[form.key] = record.recorded(found) or found
        if len(self.known) > MOST:
            self.known.pop(next(iter(self.known)))


__all__ = ["MOST", "Form", "Rebinding", "Rebound", "forget", "rebound"]
