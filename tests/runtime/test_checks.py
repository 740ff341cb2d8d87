"""Checks of candidates: sizes that they need more memory for than there is are refused before anything is drawn."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from tilewright.errors import ArgumentError
from tilewright.runtime import checks
from tilewright.runtime.checks import Check, check_room, checks_for
from tilewright.runtime.subject import Subject
from tilewright.runtime.trial import TrialRunner

SUBJECT = Subject.of("matmul", {"M": 4, "N": 64, "K": 32}, "f32", threads=1)
NEEDED = 2 * (4 * (4 * 32 + 64 * 32 + 4 * 64) + 16 * 4 * 64)
"""Two checks of three f32 operands, with value and bound of the result in float64."""


def test_room_is_what_operands_and_exact_results_take(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checks, "free_memory", lambda: NEEDED)
    check_room(SUBJECT)
    monkeypatch.setattr(checks, "free_memory", lambda: NEEDED - 1)
    with pytest.raises(ArgumentError, match=r"matmul M=4 K=32 N=64: .* are free here; give smaller sizes"):
        check_room(SUBJECT)


def test_a_full_folder_for_temporary_files_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def full(*_: object):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Check, "save", full)
    with pytest.raises(ArgumentError, match=rf"{tmp_path}/.*No space left on device.*set TMPDIR to a folder"):
        TrialRunner(SUBJECT)
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_no_operand_is_drawn_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch):
    def drawn(*_, **__):
        raise AssertionError

    monkeypatch.setattr(checks, "free_memory", lambda: 100)
    monkeypatch.setattr(checks, "draw", drawn)
    with pytest.raises(ArgumentError, match="give smaller sizes"):
        checks_for(SUBJECT, seed=0)
