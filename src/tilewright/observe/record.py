"""Recording: each launch of a program is counted by operator, sizes, types and options; contents are never seen."""

from __future__ import annotations

import importlib.util
import runpy
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from tilewright.errors import ArgumentError, TraceError
from tilewright.language import ir
from tilewright.observe.trace import Call, Option, Trace
from tilewright.operators import OPERATORS, Operator
from tilewright.ops import Launch, using
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda.watch import watched


class Recorder:
    """Counts launches while it is entered: `with recorder.recording(): ...`, then `recorder.trace()`."""

    def __init__(self) -> None:
        self._counts: Counter[Call] = Counter()
        self._met: WeakKeyDictionary[Any, Call] = WeakKeyDictionary()  # launches of passes, which are queued often
        self._lock = threading.Lock()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Every operator that is bound inside the block counts each of its launches, from whichever thread.

        Passes of models on a GPU count theirs each time that they are queued, whenever they were bound.
        """
        with using(self._bind), watched(self._seen):
            yield

    def trace(self) -> Trace:
        """What was counted so far, in the order of names and sizes."""
        with self._lock:
            found = dict(self._counts)
        return Trace(tuple(sorted((replace(c, count=n) for c, n in found.items()), key=_order)))

    def _bind(
        self, operator: Operator, buffers: Mapping[str, Buffer], scalars: Any, options: Mapping[str, Any]
    ) -> Launch:
        from tilewright.runtime import dispatch

        launch = dispatch.bind(operator, buffers, scalars, options)
        if operator is not OPERATORS.get(operator.name):  # a user's own: nobody could replay it
            return launch
        return self._counted(call_of(operator, buffers, options), launch)

    def _seen(self, launches: Sequence[Any]) -> None:
        """The launches of a pass."""
        with self._lock:
            for launch in launches:
                if launch not in self._met:
                    self._met[launch] = call_of(launch.operator, launch.buffers, launch.options)
            self._counts.update(self._met[x] for x in launches if x.operator is OPERATORS.get(x.operator.name))

    def _counted(self, call: Call, launch: Launch) -> Launch:
        def counted() -> None:
            with self._lock:
                self._counts[call] += 1
            launch()

        return counted


def call_of(operator: Operator, buffers: Mapping[str, Buffer], options: Mapping[str, Option]) -> Call:
    """The shape of a call: no address, no scalar, no content."""
    dtypes = {name: b.dtype.name for name, b in buffers.items()}
    program: ir.Kernel = operator.kernel.trace(dtypes, options=dict(options))
    sizes: dict[str, int] = {}
    for p in program.params:
        if p.dims is not None:
            sizes |= {d: n for d, n in zip(p.dims, buffers[p.name].shape, strict=True) if isinstance(d, str)}
    device = next((b.device for b in buffers.values() if b.device != "cpu"), "cpu").partition(":")[0]
    return Call(
        operator.name,
        tuple((d, sizes[d]) for d in program.dims),
        tuple(sorted(dtypes.items())),
        tuple(sorted(options.items())),
        device,
    )


def record_program(command: Sequence[str]) -> Trace:
    """The trace of a Python program, `script.py ARGS` or `-m module ARGS`, which runs in this process.

    What it raises comes through; leaving by `sys.exit` ends the recording only. ArgumentError where there is none.
    """
    run, arguments = _program(command)
    recorder, before = Recorder(), sys.argv
    sys.argv = list(arguments)
    try:
        with recorder.recording():
            run()
    except SystemExit as leaving:
        if leaving.code not in (None, 0):
            raise TraceError(f"{arguments[0]} ended with {leaving.code}; nothing was recorded") from None
    finally:
        sys.argv = before
    return recorder.trace()


def _program(command: Sequence[str]) -> tuple[Callable[[], object], Sequence[str]]:
    if len(command) > 1 and command[0] == "-m":
        module, arguments = command[1], command[1:]
        if not _is_module(module):
            raise ArgumentError(f"no module is called {module!r}; run this where `python -m {module}` works")
        return lambda: runpy.run_module(module, run_name="__main__", alter_sys=True), arguments
    if command and Path(command[0]).is_file():
        return lambda: runpy.run_path(command[0], run_name="__main__"), command
    raise ArgumentError(
        "give the program to record: tilewright trace record FILE script.py ARGS, or -m MODULE ARGS after FILE"
    )


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a package above it is missing, or it has no name
        return False


def _order(call: Call) -> tuple[str, ...]:
    return call.operator, *map(repr, (call.sizes, call.dtypes, call.options))


__all__ = ["Recorder", "call_of", "record_program"]
