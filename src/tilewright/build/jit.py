"""Text to binary and back: LLVM IR -> object file (or assembly) -> functions that can be called.

An object file is relocatable and names what it needs (`memcpy`, `pthread_create`, ...) by symbol, so it can be stored
and loaded by a later process. The IR is taken as it is: the pass manager runs only if asked, because the emitter
writes SSA form already and the passes cost ten times what the code generator does. Of the code generator's own passes,
loop strength reduction is left out: it took a quarter of the time, and most loops are as fast or faster without its
pointers (docs/notes/0001-x86-speed.md).
"""

from __future__ import annotations

import hashlib
import platform
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import llvmlite
import llvmlite.binding as llvm

from tilewright.errors import CompileError

# (code model, relocation) of code that calls something outside of it: addresses are 64-bit words that the loader fills
# in, since a process that has mapped 100 GB of weights has no two gigabytes to spare near libc.
_FAR = ("large", "static")
# Of code that calls nothing, as most kernels: what it reads lies beside it, and LLVM then loads numbers that a loop
# needs before the loop. Where each has a 64-bit address it loads them in every round: ten for an exponential.
_NEAR = ("small", "pic") if platform.machine() == "x86_64" else _FAR
# Options of LLVM for all of the process: the only way to name a pass of the code generator.
_OPTIONS = ("-disable-lsr",)


_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Target:
    """What to compile for.

    `cpu` is LLVM's name of a processor (it sets the scheduling model), `features` LLVM's flags ("+avx2,+fma,-sse4a"),
    `opt` the effort of the code generator, 0 to 3.
    """

    cpu: str
    features: str
    opt: int = 3

    @classmethod
    def host(cls, opt: int = 3) -> Target:
        """The processor this process runs on, as LLVM sees it (a virtual machine may report a wrong name)."""
        return cls(llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), opt)

    @property
    def fingerprint(self) -> str:
        """All that decides the binary besides the text: triple, processor, features, effort."""
        return f"{llvm.get_default_triple()}/{self.cpu}/{self.features}/O{self.opt}"

    @property
    def enabled(self) -> frozenset[str]:
        """The features that are on, without their sign: {"avx2", "fma", ...}."""
        flags = self.features.split(",") if self.features else ()
        return frozenset(flag[1:] for flag in flags if flag.startswith("+"))


def compiler_version() -> str:
    """Versions of LLVM and its binding, and how they are used: a part of every cache key."""
    numbers = ".".join(map(str, llvm.llvm_version_info))
    return f"llvm {numbers} llvmlite {llvmlite.__version__} {' '.join((*_NEAR, *_FAR, *_OPTIONS))}"


def compile_ir(ir: str, target: Target, *, optimise: bool = False) -> bytes:
    """The object file of a module of LLVM IR text; `optimise` runs LLVM's pass pipeline on it first.

    Raises CompileError with LLVM's message if the text is not a valid module, or if `target` is not one.
    Safe to call from many threads (LLVM is entered by one at a time; the interpreter lock is released).
    """

    def emit(machine: Any, module: Any) -> bytes:
        return bytes(machine.emit_object(module))

    code = _generate(ir, target, optimise, emit)
    # The code generator may call what the text did not: memset for a loop that clears.
    return code if not _symbols(code)[1] - _MADE_BY_LINKER else _generate(ir, target, optimise, emit, near=False)


def assemble(ir: str, target: Target, *, optimise: bool = False) -> str:
    """The assembly text of what `compile_ir` makes of the same arguments."""
    return str(_generate(ir, target, optimise, lambda machine, module: machine.emit_assembly(module)))


def load(object_bytes: bytes) -> Library:
    """Link an object file from `compile_ir` into this process.

    Raises CompileError if it is not an object file of this machine, or needs a symbol that the process does not have.
    The code is unmapped with the Library: whoever keeps an address must keep the Library too.
    """
    return Library(object_bytes)


def add_symbol(name: str, address: int) -> None:
    """Let objects that are loaded later call `name`, at `address`; replaces what `name` meant before."""
    llvm.add_symbol(name, address)


class Library:
    """An object file that is mapped into the process; made by `load`."""

    def __init__(self, object_bytes: bytes) -> None:
        self._addresses: dict[str, int] = {}
        self.digest = hashlib.sha256(object_bytes).hexdigest()
        self._lock = threading.Lock()
        self.symbols, needed = _symbols(object_bytes)
        # The first engine of a process also opens the process itself (libc, libm, pthread) for look-ups.
        self._engine = _new_engine()
        missing = sorted(name for name in needed if not _resolvable(name))
        if missing:
            raise CompileError(
                f"the kernel calls {', '.join(missing)}, which this process does not have; "
                "declare it with build.jit.add_symbol, or compile the kernel again on this machine"
            )
        # LLVM reads from these bytes after the call returns.
        self._object_bytes = object_bytes
        self._object = llvm.ObjectFileRef.from_data(object_bytes)
        self._engine.add_object_file(self._object)
        self._engine.finalize_object()

    def address(self, symbol: str) -> int:
        """The address of the function `symbol`; CompileError if the object does not define it."""
        found = self._addresses.get(symbol)
        if found is None:
            found = self._look_up(symbol)
        return found

    def _look_up(self, symbol: str) -> int:
        # LLVM ends the process when asked for a symbol it does not know, so ask only for those that exist.
        if symbol not in self.symbols:
            names = ", ".join(sorted(self.symbols)) or "nothing"
            raise CompileError(f"the object defines no function {symbol!r}; it defines {names}")
        with self._lock:
            address = int(self._engine.get_function_address(symbol))
            self._addresses[symbol] = address
        return address


# ------------------------------------------------------------------------------------------ code generation
def _generate(
    ir: str, target: Target, optimise: bool, emit: Callable[[Any, Any], _Made], near: bool | None = None
) -> _Made:
    """What `emit` makes of a module; `near` where it reaches nothing outside of it, else as its declarations say."""
    _initialise()
    # A context of its own: LLVM's global context may not be used by two threads, and never forgets a type.
    context = llvm.create_context()
    module = _parse(ir, context)
    alone = not _reaches_out(module) if near is None else near
    machine = _new_machine(target, *(_NEAR if alone else _FAR))
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    if optimise:
        _run_passes(module, machine, target)
    return emit(machine, module)


def _parse(ir: str, context: Any) -> Any:
    try:
        module = llvm.parse_assembly(ir, context)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM refused the emitted text (stage ll): {str(error).strip()[:2000]}") from None
    return module


def _reaches_out(module: Any) -> bool:
    """Whether a module names functions or data of others."""
    named = (*module.functions, *module.global_variables)
    return any(v.is_declaration and not v.name.startswith("llvm.") for v in named)


def _new_machine(target: Target, model: str, relocation: str) -> Any:
    """A TargetMachine for one use: an engine takes possession of its machine, and two users of one crash."""
    try:
        return _llvm_target().create_target_machine(
            cpu=target.cpu, features=target.features, opt=target.opt, reloc=relocation, codemodel=model, jit=True
        )
    except RuntimeError as error:
        raise CompileError(f"LLVM has no target {target}: {error}") from None


def _run_passes(module: Any, machine: Any, target: Target) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=target.opt)
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)


def _new_engine() -> Any:
    _initialise()
    module = llvm.parse_assembly("", _engines())
    # llvmlite's memory manager keeps all sections of an object in one reservation, in reach of each other.
    return llvm.create_mcjit_compiler(module, _new_machine(Target("", ""), *_FAR), use_lmm=True)


@cache
def _engines() -> Any:
    """The context of the empty modules that engines are made with; llvmlite lets one thread at a time into it.

    It lives as long as the process. One of its own for each engine could go first, where both are part of a cycle that
    is collected: an engine that goes after its context ends the process.
    """
    return llvm.create_context()


@cache
def _initialise() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for option in _OPTIONS:
        llvm.set_option("tilewright", option)


@cache
def _llvm_target() -> Any:
    return llvm.Target.from_default_triple()


# ------------------------------------------------------------------------------------------ symbols of an object
_SECTION_SYMTAB = 2
_UNDEFINED = 0
_KIND_FUNCTION = 2
_MACHINES = {"x86_64": 62, "aarch64": 183}


def _symbols(data: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """(functions defined, symbols needed) of an ELF64 little-endian object; LLVM itself would abort on a bad one."""
    try:
        return _elf_symbols(data)
    except (struct.error, IndexError, ValueError) as error:
        raise CompileError(f"not an object file of this machine ({error}); compile the kernel again") from None


def _elf_symbols(data: bytes) -> tuple[frozenset[str], frozenset[str]]:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no ELF64 header")
    machine = struct.unpack_from("<H", data, 18)[0]
    if machine != _MACHINES.get(platform.machine(), machine):
        raise ValueError(f"ELF machine {machine} is not {platform.machine()}")
    table = struct.unpack_from("<Q", data, 40)[0]
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * size) for i in range(count)]
    defined, needed = set(), set()
    for section in sections:
        if section[1] != _SECTION_SYMTAB:
            continue
        names = sections[section[6]][4]
        for offset in range(section[4], section[4] + section[5], 24):
            name_at, info, _, index, _, _ = struct.unpack_from("<IBBHQQ", data, offset)
            name = data[names + name_at : data.index(b"\0", names + name_at)].decode()
            if index == _UNDEFINED and name:
                needed.add(name)
            elif info & 15 == _KIND_FUNCTION:
                defined.add(name)
    return frozenset(defined), frozenset(needed)


# The linker makes this one itself.
_MADE_BY_LINKER = frozenset({"_GLOBAL_OFFSET_TABLE_"})


def _resolvable(name: str) -> bool:
    return name in _MADE_BY_LINKER or bool(llvm.address_of_symbol(name))
