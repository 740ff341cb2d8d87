"""Free memory: what the kernel says, else a half of what is installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tilewright.machines.free_memory import UNKNOWN, free_memory


def test_what_the_kernel_says_counts(tmp_path: Path):
    (tmp_path / "meminfo").write_text("MemTotal:       24000000 kB\nMemAvailable:   3 kB\n")
    assert free_memory(tmp_path / "meminfo") == 3 * 1024


@pytest.mark.parametrize("text", ["", "MemTotal: 5 kB\n", "MemAvailable: many\n", "nothing\n"])
def test_half_of_the_memory_where_the_kernel_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    (tmp_path / "meminfo").write_text(text)
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}[name])
    assert free_memory(tmp_path / "meminfo") == 2048000
    monkeypatch.setattr(os, "sysconf", int)  # ValueError: a name that this system does not know
    assert free_memory(tmp_path / "meminfo") == UNKNOWN
