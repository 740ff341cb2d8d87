"""Guard pages: what is written beside a block is seen, or ends the process that did it, which says where."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tilewright.runtime import fault
from tilewright.runtime.guard import PAGE, Guarded


@pytest.mark.parametrize("high", [True, False])
@pytest.mark.parametrize("nbytes", [0, 4, 100, PAGE, PAGE + 64])
def test_a_block_holds_its_bytes_at_its_end_of_the_pages(high, nbytes):
    block = Guarded(nbytes, high)
    array = block.array((nbytes,), np.uint8)
    array[...] = 7
    assert block.stray() is None
    edge = block.address + nbytes if high else block.address
    assert edge % PAGE == 0
    block.free()


@pytest.mark.parametrize(
    ("high", "at", "said"), [(True, -1, "before its first byte"), (False, 8, "after its last byte")]
)
def test_what_is_written_on_its_own_pages_is_seen(high, at, said):
    import ctypes

    block = Guarded(8, high)
    ctypes.c_uint8.from_address(block.address + at).value = 1
    assert block.stray() == f"1 bytes were written {said}"
    block.free()


@pytest.mark.parametrize(
    ("poke", "write", "offset"),
    [
        ("ctypes.c_uint8.from_address(block.address + 100).value = 1", True, 100),
        ("ctypes.c_uint8.from_address(block.address + 100).value", False, 100),
        ("low = Guarded(100, False); offset = low.address - block.address; "
         "ctypes.c_uint8.from_address(low.address - 1).value = 1", True, None),
        ("block.read_only(); ctypes.c_uint8.from_address(block.address).value = 1", True, 0),
    ],
)  # fmt: skip
def test_a_fault_names_its_address_and_whether_it_was_written(poke, write, offset):
    code = (
        "import ctypes, sys\nfrom tilewright.runtime import fault\nfrom tilewright.runtime.guard import Guarded\n"
        f"fault.install(int(sys.argv[1]))\nblock = Guarded(100)\nprint(block.address, flush=True)\n{poke}\n"
    )
    read_end, write_end = os.pipe()
    done = subprocess.run(
        [sys.executable, "-c", code, str(write_end)], pass_fds=[write_end], capture_output=True, check=False
    )
    os.close(write_end)
    found = fault.read(os.read(read_end, 64))
    os.close(read_end)
    assert done.returncode < 0
    assert found is not None and found.signal == -done.returncode
    assert found.write == write
    if offset is not None:
        assert found.address == int(done.stdout) + offset


def test_no_fault_is_none():
    assert fault.read(b"") is None


def test_an_array_takes_just_the_bytes():
    block = Guarded(8)
    with pytest.raises(ValueError, match="is not 8 bytes"):
        block.array((3,), np.float32)
    block.free()
