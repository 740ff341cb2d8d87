"""Temporary folders: those of the dead are swept, those of the living and of others never."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from tilewright.errors import ArgumentError
from tilewright.runtime import scratch
from tilewright.runtime.background import BackgroundProcess, Budget
from tilewright.runtime.crew import Crew
from tilewright.runtime.scratch import Scratch, sweep

HOLDER = Path(__file__).parent / "scratch_holder.py"


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files, empty, on a file system whose locks all can see."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(scratch, "is_local", lambda _: True)
    return tmp_path


def left(kind: str = "trial") -> Path:
    """A folder whose owner is gone."""
    made = Scratch(kind)
    path = made.path
    (path / "sub").mkdir()
    (path / "sub" / "operand.npy").write_bytes(b"x")
    del made
    gc.collect()
    assert path.exists()  # nothing goes before somebody sweeps
    return path


def test_a_killed_process_leaves_folders_that_the_next_one_removes(temporary):
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, str(HOLDER), "1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout is not None
        paths = [Path(word) for word in holder.stdout.readline().split()]
        try:
            assert [p.parent for p in paths] == [temporary] * 2
            sweep()
            assert all(p.exists() for p in paths)  # it lives
        finally:
            holder.send_signal(signal.SIGKILL)
    assert holder.returncode == -signal.SIGKILL
    assert all(any(p.iterdir()) for p in paths)
    own = Scratch("trial")
    assert list(temporary.iterdir()) == [own.path]


@pytest.mark.parametrize("kind", ["trial", "crew", "background"])
def test_what_nobody_holds_is_swept(kind):
    path = left(kind)
    sweep()
    assert not path.exists()


def test_removed_at_once_by_its_owner(temporary):
    made = Scratch("crew")
    (made.path / "log").write_text("x")
    made.remove()
    made.remove()
    assert not list(temporary.iterdir())


def test_a_folder_is_locked_before_it_can_be_found_free(monkeypatch):
    """Sweeps between any two steps of its making leave it alone."""
    seen = []

    def swept_before(real):
        def call(*arguments, **named):
            sweep()
            result = real(*arguments, **named)
            seen.append(real.__name__)
            sweep()
            return result

        return call

    with monkeypatch.context() as patch:
        patch.setattr(scratch.os, "rename", swept_before(os.rename))
        patch.setattr(scratch.tempfile, "mkdtemp", swept_before(tempfile.mkdtemp))
        made = Scratch("trial")
    assert seen == ["mkdtemp", "rename"]
    assert made.path.exists() and (made.path / scratch._OWNER).exists()


def test_many_that_make_sweep_and_remove_at_once_keep_their_own(temporary):
    lost, start = [], threading.Barrier(6)

    def work():
        start.wait()
        for turn in range(40):
            made = Scratch("trial")
            (made.path / "operand").write_text("x")
            sweep()
            if not (made.path / "operand").exists():
                lost.append(made.path)
            if turn % 2:
                made.remove()
            del made  # else it is left to whoever sweeps next

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == []
    gc.collect()
    sweep()
    assert not list(temporary.iterdir())


def test_the_copy_of_a_fork_takes_nothing_from_its_parent():
    made = Scratch("trial")
    child = os.fork()
    if child == 0:
        made._leave()
        os._exit(0)
    os.waitpid(child, 0)
    sweep()
    assert made.path.exists()


def test_what_is_not_this_user_s_own_is_left_alone(temporary, monkeypatch):
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / scratch._OWNER).touch()
    (temporary / "tilewright-trial-link").symlink_to(elsewhere)
    (temporary / "tilewright-trial-file").touch()
    (temporary / "tilewright-trial-unlocked").mkdir()
    (temporary / "tilewright-bench-other").mkdir()
    (temporary / "tilewright-bench-other" / scratch._OWNER).touch()
    linked = temporary / "tilewright-trial-linked-owner"
    linked.mkdir()
    (linked / scratch._OWNER).symlink_to(elsewhere / scratch._OWNER)
    before = sorted(temporary.rglob("*"))
    sweep()
    assert sorted(temporary.rglob("*")) == before
    path = left()
    with monkeypatch.context() as patch:
        patch.setattr(scratch.os, "getuid", lambda: os.stat(path).st_uid + 1)
        sweep()
    assert path.exists()
    sweep()
    assert not path.exists()


def test_nothing_is_swept_where_hosts_may_share_the_folder(monkeypatch):
    monkeypatch.setattr(scratch, "is_local", lambda _: False)
    path = left()
    monkeypatch.setattr(scratch, "is_local", lambda _: True)
    sweep()
    assert path.exists()


def test_a_folder_that_cannot_be_made_names_the_fix(temporary, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "none"))
    with pytest.raises(ArgumentError, match="set TMPDIR to a folder"):
        Scratch("trial")


@pytest.mark.parametrize(
    ("make", "end"), [(Crew, Crew.close), (lambda: BackgroundProcess(Budget()), BackgroundProcess.stop)]
)
def test_who_needs_one_sweeps_and_removes_its_own(make, end, temporary):
    path = left()
    made = make()
    assert not path.exists()
    assert len(list(temporary.iterdir())) == 1
    end(made)
    assert not list(temporary.iterdir())
