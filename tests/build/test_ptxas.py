"""ptxas's report, from logs as NVRTC prints them."""

from __future__ import annotations

import pytest

from tilewright.build.ptxas import Report, parse_report

LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_90a'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 9 barriers, 1024 bytes smem
ptxas info    : Compiling entry function 'second' for 'sm_90a'
ptxas info    : Function properties for second
    96 bytes stack frame, 40 bytes spill stores, 44 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
"""


def test_each_entry_has_its_own_numbers():
    assert parse_report(LOG, "first") == Report(168, barriers=9, shared=1024)
    second = parse_report(LOG, "second")
    assert (second.registers, second.stack, second.spills) == (255, 96, 84)


def test_an_entry_that_is_not_there():
    with pytest.raises(ValueError, match="third"):
        parse_report(LOG, "third")


def test_warnings_are_kept():
    warned = LOG + "ptxas warning : (C7508) Potential Performance Loss: 'setmaxnreg' ignored\n"
    assert "setmaxnreg" in parse_report(warned, "first").warnings[0]
