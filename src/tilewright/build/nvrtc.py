"""CUDA C++ to cubin through NVRTC, in this process: no GPU, no driver and no toolkit are needed.

Compilation releases the interpreter's lock, so that threads compile side by side.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from tilewright.build.ptxas import Report, parse_report
from tilewright.errors import CompileError, MachineError

_INSTALL = 'pip install "tilewright[cuda]"'
_INCLUDE = re.compile(r'^\s*#include\s+"(tw/[\w/]+\.cuh)"', re.MULTILINE)
_SUPPORTED = re.compile(r"sm_(\d+)a?")


@dataclass(frozen=True)
class Compiled:
    """A cubin for one architecture, and what ptxas says of its kernel."""

    cubin: bytes
    report: Report


def compile_cuda(source: str, entry: str, architecture: str) -> Compiled:
    """The kernel `entry` of `source` for `architecture` ("sm_90a"); headers `tw/...` are the tile library.

    Raises CompileError with the compiler's message, MachineError where NVRTC is missing or too old for the
    architecture.
    """
    nvrtc = _nvrtc()
    _check_architecture(nvrtc, architecture)
    headers = headers_of(source)
    names, texts = [n.encode() for n in headers], [t.encode() for t in headers.values()]
    program = _ok(nvrtc, nvrtc.nvrtcCreateProgram(source.encode(), f"{entry}.cu".encode(), len(names), texts, names))
    try:
        options = [
            f"--gpu-architecture={architecture}".encode(),
            b"--std=c++17",
            b"--ptxas-options=-v",
            b"-default-device",
            b"--no-cache",  # a result found there comes without its report
        ]
        status = nvrtc.nvrtcCompileProgram(program, len(options), options)[0]
        log = _text(nvrtc, program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog)
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise CompileError(f"NVRTC refused {entry} for {architecture}:\n{log}\nLook at it with DEBUG=4.")
        cubin = _bytes(nvrtc, program, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    try:
        return Compiled(cubin, parse_report(log, entry))
    except ValueError as error:
        raise CompileError(f"{error}; NVRTC's log reads:\n{log}") from None


def compile_ptx(source: str, entry: str, architecture: str) -> str:
    """The PTX of the same, to be read (a cubin is not made from it: ptxas would drop `setmaxnreg`)."""
    nvrtc = _nvrtc()
    headers = headers_of(source)
    names, texts = [n.encode() for n in headers], [t.encode() for t in headers.values()]
    program = _ok(nvrtc, nvrtc.nvrtcCreateProgram(source.encode(), f"{entry}.cu".encode(), len(names), texts, names))
    try:
        virtual = architecture.replace("sm_", "compute_")
        options = [f"--gpu-architecture={virtual}".encode(), b"--std=c++17", b"-default-device"]
        status = nvrtc.nvrtcCompileProgram(program, len(options), options)[0]
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = _text(nvrtc, program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog)
            raise CompileError(f"NVRTC refused {entry} for {virtual}:\n{log}")
        return _bytes(nvrtc, program, nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX).rstrip(b"\0").decode()
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def headers_of(source: str) -> dict[str, str]:
    """The headers of the tile library that `source` includes, directly or through one another, by name."""
    found: dict[str, str] = {}
    wanted = _INCLUDE.findall(source)
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = header(name)
            wanted += _INCLUDE.findall(found[name])
    return dict(sorted(found.items()))


def library() -> list[str]:
    """Names of all headers of the tile library, without `tw/` and `.cuh`."""
    folder = resources.files("tilewright.emit") / "cuda"
    return sorted(p.name.removesuffix(".cuh") for p in folder.iterdir() if p.name.endswith(".cuh"))


@cache
def header(name: str) -> str:
    """The text of `tw/NAME.cuh`; CompileError if the library has none of that name."""
    path = resources.files("tilewright.emit") / "cuda" / name.removeprefix("tw/")
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        raise CompileError(f"the tile library has no header {name}") from None


def nvrtc_version() -> str:
    """Version of NVRTC: a part of every cache key. MachineError where it is missing."""
    nvrtc = _nvrtc()
    status, major, minor = nvrtc.nvrtcVersion()
    _ok(nvrtc, (status,))
    return f"nvrtc {major}.{minor}"


def missing() -> str | None:
    """Why nothing can be compiled here, with the fix; None where NVRTC works."""
    try:
        nvrtc_version()
    except MachineError as error:
        return str(error)
    return None


@cache
def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc
    except ImportError:
        raise MachineError(f"the package cuda-bindings is not installed; {_INSTALL}") from None
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:  # the shared library is looked for at the first call
        raise MachineError(f"NVRTC's library cannot be loaded ({error}); {_INSTALL}") from None
    return nvrtc


@cache
def _architectures(nvrtc: Any) -> tuple[int, ...]:
    status, count = nvrtc.nvrtcGetNumSupportedArchs()
    _ok(nvrtc, (status,))
    status, known = nvrtc.nvrtcGetSupportedArchs()
    _ok(nvrtc, (status,))
    return tuple(known)[:count]


def _check_architecture(nvrtc: Any, architecture: str) -> None:
    match = _SUPPORTED.fullmatch(architecture)
    known = _architectures(nvrtc)
    if match is None or int(match.group(1)) not in known:
        names = ", ".join(f"sm_{n}" for n in known)
        raise MachineError(
            f"{nvrtc_version()} does not compile for {architecture}, but for {names}; install a newer "
            "nvidia-cuda-nvrtc, or use a GPU that it knows"
        )


def _ok(nvrtc: Any, answer: tuple[Any, ...]) -> Any:
    status, *rest = answer
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CompileError(f"NVRTC failed with {status.name}; reinstall it: {_INSTALL}")
    return rest[0] if rest else None


def _bytes(nvrtc: Any, program: Any, size: Any, get: Any) -> bytes:
    buffer = b"\0" * int(_ok(nvrtc, size(program)))
    _ok(nvrtc, get(program, buffer))
    return buffer


def _text(nvrtc: Any, program: Any, size: Any, get: Any) -> str:
    return _bytes(nvrtc, program, size, get).rstrip(b"\0").decode(errors="replace").strip()


__all__ = ["Compiled", "compile_cuda", "compile_ptx", "header", "headers_of", "library", "missing", "nvrtc_version"]
