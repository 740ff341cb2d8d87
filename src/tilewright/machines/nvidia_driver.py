"""The NVIDIA driver through cuda-bindings: found and initialised in one place, for machines and for launches alike."""

from __future__ import annotations

from functools import cache
from typing import Any

from tilewright.errors import MachineError

FIX = "run `tilewright doctor` to see which driver and GPUs were found"


@cache
def driver() -> Any:
    """cuda-bindings' driver module, initialised; MachineError where there is no driver or no GPU."""
    try:
        from cuda.bindings import driver as found
    except ImportError:
        raise MachineError('the package cuda-bindings is not installed; pip install "tilewright[cuda]"') from None
    try:
        status = found.cuInit(0)[0]
    except RuntimeError as error:
        raise MachineError(f"no NVIDIA driver can be loaded ({error}); install one, or run on the cpu") from None
    if int(status):
        raise MachineError(f"the NVIDIA driver does not start ({status.name}); check it with nvidia-smi")
    return found


def asked(answer: tuple[Any, ...], doing: str) -> Any:
    """The value of a driver call that looks at a GPU; MachineError with the driver's word for what went wrong."""
    status, *rest = answer
    if int(status):
        raise MachineError(f"{doing} failed with {status.name}; check the NVIDIA driver with nvidia-smi")
    return rest[0] if rest else None


__all__ = ["FIX", "asked", "driver"]
