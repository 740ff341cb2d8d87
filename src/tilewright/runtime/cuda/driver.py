"""The CUDA driver as kernels need it: contexts, modules, functions, tensor maps, and the fastest way to launch.

Everything but the launch goes through cuda-bindings. A launch is one call of `cuLaunchKernelEx` with structures that
were filled in once; through ctypes that costs under two microseconds, a third of what the bindings' own objects take.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tilewright.emit.cuda_abi import MAP_BYTES
from tilewright.errors import LaunchError
from tilewright.machines.nvidia_driver import FIX, driver
from tilewright.runtime.cuda import at_once, capture


def checked(answer: tuple[Any, ...], doing: str) -> Any:
    """The value of a driver call; LaunchError naming what was done and the driver's word for what went wrong."""
    status, *rest = answer
    if int(status):
        raise LaunchError(f"{doing} failed with {status.name}; {capture.advice(int(status))}")
    return rest[0] if len(rest) == 1 else rest


@cache
def context(device: int) -> Any:
    """The device's primary context (torch uses the same); it is made current for this thread by `use`."""
    cu = driver()
    handle = checked(cu.cuDeviceGet(device), f"opening GPU {device}")
    return checked(cu.cuDevicePrimaryCtxRetain(handle), f"making a context on GPU {device}")


def use(device: int) -> None:
    """Make the device's primary context current for this thread."""
    checked(driver().cuCtxSetCurrent(context(device)), f"switching to GPU {device}")


@contextmanager
def inside(device: int) -> Iterator[None]:
    """The device's primary context current for this thread inside the `with` block, and afterwards what was before."""
    checked(at_once.push(_handle(device)), f"switching to GPU {device}")
    try:
        yield
    finally:
        checked(at_once.pop(), f"switching back from GPU {device}")


@cache
def _handle(device: int) -> int:
    return int(context(device))


@dataclass(frozen=True)
class Function:
    """A kernel loaded on one device: its handle, and blocks that an SM holds at once."""

    handle: int
    device: int
    resident: int


def load(cubin: bytes, entry: str, device: int, threads: int, shared_bytes: int, cluster: int) -> Function:
    """The kernel `entry` of a cubin on a device, allowed its dynamic shared memory and its clusters."""
    use(device)
    with capture.aside():
        return _load(cubin, entry, device, threads, shared_bytes, cluster)


def _load(cubin: bytes, entry: str, device: int, threads: int, shared_bytes: int, cluster: int) -> Function:
    cu = driver()
    module = checked(cu.cuModuleLoadData(cubin), f"loading {entry}")
    function = checked(cu.cuModuleGetFunction(module, entry.encode()), f"finding {entry} in its cubin")
    attribute = cu.CUfunction_attribute
    wanted = attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    checked(
        cu.cuFuncSetAttribute(function, wanted, shared_bytes), f"giving {entry} {shared_bytes} bytes of shared memory"
    )
    if cluster > 8:
        allowed = attribute.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
        checked(cu.cuFuncSetAttribute(function, allowed, 1), f"allowing clusters of {cluster} for {entry}")
    per_sm = checked(
        cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(function, threads, shared_bytes), f"counting blocks of {entry}"
    )
    if per_sm < 1:
        raise LaunchError(f"{entry} does not fit on an SM: {threads} threads, {shared_bytes} bytes of shared memory")
    _modules.append(module)
    return Function(int(function), device, int(per_sm))


_modules: list[Any] = []  # loaded for as long as the process lives: a graph may hold a kernel of theirs

_DTYPES = {
    "bf16": "CU_TENSOR_MAP_DATA_TYPE_BFLOAT16",
    "f16": "CU_TENSOR_MAP_DATA_TYPE_FLOAT16",
    "f32": "CU_TENSOR_MAP_DATA_TYPE_FLOAT32",
    "f64": "CU_TENSOR_MAP_DATA_TYPE_FLOAT64",
    "i32": "CU_TENSOR_MAP_DATA_TYPE_INT32",
    "i64": "CU_TENSOR_MAP_DATA_TYPE_INT64",
    "i8": "CU_TENSOR_MAP_DATA_TYPE_UINT8",
    "f8e4m3": "CU_TENSOR_MAP_DATA_TYPE_UINT8",
}
_SWIZZLES = {0: "NONE", 32: "32B", 64: "64B", 128: "128B"}
_PROMOTIONS = {0: "NONE", 64: "L2_64B", 128: "L2_128B", 256: "L2_256B"}


def tensor_map(
    pointer: int,
    dtype: str,
    sizes: Sequence[int],
    strides: Sequence[int],
    box: Sequence[int],
    swizzle: int,
    promotion: int,
) -> bytes:
    """The 128 bytes of a CUtensorMap: sizes and box in elements, strides in BYTES of every dimension but the first.

    Dimensions stand with the contiguous one first. LaunchError where the driver refuses (16-byte alignment of pointer
    and strides, boxes of at most 256, sizes below 2**32).
    """
    cu = driver()
    rank = len(sizes)
    found = checked(
        cu.cuTensorMapEncodeTiled(
            getattr(cu.CUtensorMapDataType, _DTYPES[dtype]), rank, pointer,
            [cu.cuuint64_t(max(1, n)) for n in sizes], [cu.cuuint64_t(s) for s in strides],
            [cu.cuuint32_t(n) for n in box], [cu.cuuint32_t(1)] * rank,
            cu.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
            getattr(cu.CUtensorMapSwizzle, f"CU_TENSOR_MAP_SWIZZLE_{_SWIZZLES[swizzle]}"),
            getattr(cu.CUtensorMapL2promotion, f"CU_TENSOR_MAP_L2_PROMOTION_{_PROMOTIONS[promotion]}"),
            cu.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        ),
        f"describing a tensor of {list(sizes)} {dtype}, strides {list(strides)} bytes, boxes of {list(box)}",
    )  # fmt: skip
    return ctypes.string_at(int(found.getPtr()), MAP_BYTES)


# -------------------------------------------------------------------------------------------- launching
class _Attribute(ctypes.Structure):
    _fields_ = (("id", ctypes.c_int), ("pad", ctypes.c_int), ("value", ctypes.c_uint * 16))


class _Config(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p), ("attributes", ctypes.POINTER(_Attribute)), ("count", ctypes.c_uint),
    )  # fmt: skip


_CLUSTER_DIMENSION, _PROGRAMMATIC_STREAM_SERIALIZATION = 4, 6
_NO_CONTEXT, _OTHER_CONTEXT = 201, 400
"""CUDA_ERROR_INVALID_CONTEXT: of a thread that has none; CUDA_ERROR_INVALID_HANDLE: of one with another GPU's."""


class Call:
    """A launch that is ready to go: only the stream is missing. The argument is read when it is launched."""

    __slots__ = (
        "_attributes",
        "_config",
        "_facts",
        "_function",
        "_launch",
        "_parameters",
        "_reference",
        "argument",
        "name",
    )

    def __init__(
        self,
        name: str,
        function: Function,
        argument: np.ndarray,
        blocks: int,
        threads: int,
        shared: int,
        cluster: int,
        pdl: bool,
    ) -> None:
        self.name, self.argument = name, argument
        self._facts = (name, function, blocks, threads, shared, cluster, pdl)
        self._function = ctypes.c_void_p(function.handle)
        attributes = (_Attribute * 2)()
        count = 0
        if cluster > 1:
            attributes[count].id = _CLUSTER_DIMENSION
            attributes[count].value[0], attributes[count].value[1], attributes[count].value[2] = cluster, 1, 1
            count += 1
        if pdl:
            attributes[count].id, attributes[count].value[0] = _PROGRAMMATIC_STREAM_SERIALIZATION, 1
            count += 1
        self._attributes = attributes
        self._config = _Config((blocks, 1, 1), (threads, 1, 1), shared, None, attributes, count)
        self._reference = ctypes.byref(self._config)
        self._parameters = (ctypes.c_void_p * 1)(argument.ctypes.data)
        self._launch = _launcher()

    @property
    def blocks(self) -> int:
        """Blocks of the grid."""
        return int(self._config.grid[0])

    def copy(self) -> Call:
        """The same launch with an argument of its own."""
        name, function, blocks, threads, shared, cluster, pdl = self._facts
        return Call(name, function, aligned_copy(self.argument), blocks, threads, shared, cluster, pdl)

    def __call__(self, stream: int) -> None:
        """Launch on a stream (its handle); LaunchError if the driver refuses."""
        self._config.stream = stream
        status = self._launch(self._reference, self._function, self._parameters, None)
        if status:
            self.again(status)

    def again(self, status: int) -> None:
        """After a launch that gave `status`: once more where only the thread's context was wrong, else LaunchError."""
        if status == _NO_CONTEXT:
            use(self._facts[1].device)
            status = self._launch(self._reference, self._function, self._parameters, None)
        elif status == _OTHER_CONTEXT:
            with inside(self._facts[1].device):
                status = self._launch(self._reference, self._function, self._parameters, None)
        if status:
            found = driver().CUresult(status).name
            raise LaunchError(f"launching {self.name} failed with {found}; {capture.advice(status)}")

    def addresses(self, stream: int) -> tuple[int, int, int, int]:
        """The driver's function, the configuration with `stream`, the kernel and its parameters, for `launch_ir`."""
        self._config.stream = stream
        kernel = int(self._function.value or 0)
        return address(self._launch), ctypes.addressof(self._config), kernel, ctypes.addressof(self._parameters)


def argument_memory(size: int) -> np.ndarray:
    """Zeroed host memory for a kernel's argument; tensor maps in it start at multiples of their size."""
    raw = np.zeros(size + MAP_BYTES, np.uint8)
    start = -raw.ctypes.data % MAP_BYTES
    return raw[start : start + size]


def aligned_copy(argument: np.ndarray) -> np.ndarray:
    """A copy of a kernel's argument."""
    made = argument_memory(argument.size)
    made[:] = argument
    return made


def move_map(argument: np.ndarray, number: int, pointer: int) -> None:
    """Let tensor map `number` of an argument describe the same tensor at another address."""
    status = mover()(argument.ctypes.data + MAP_BYTES * number, pointer)
    if status:
        raise LaunchError(f"moving a tensor map to {pointer:#x} failed with {driver().CUresult(status).name}; {FIX}")


def address(function: Any) -> int:
    """Where a function of the driver is."""
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


@cache
def mover() -> Any:
    """`cuTensorMapReplaceAddress`."""
    driver()
    move = ctypes.CDLL("libcuda.so.1").cuTensorMapReplaceAddress
    move.argtypes, move.restype = (ctypes.c_void_p, ctypes.c_void_p), ctypes.c_int
    return move


@cache
def _launcher() -> Any:
    driver()
    launch = ctypes.CDLL("libcuda.so.1").cuLaunchKernelEx
    launch.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    launch.restype = ctypes.c_int
    return launch


__all__ = [
    "Call",
    "Function",
    "address",
    "argument_memory",
    "checked",
    "context",
    "driver",
    "inside",
    "load",
    "move_map",
    "mover",
    "tensor_map",
    "use",
]
