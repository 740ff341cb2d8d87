"""What happens to a child that tells of its jobs: it ends, dies, hangs, or says something else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[2] / "tools")]

from watched import watched


@pytest.mark.parametrize(
    ("program", "told", "hung", "status"),
    [
        ("print('#a'); print('#b')", 2, False, 0),
        ("print('#a', flush=True); import os; os._exit(3)", 1, False, 3),
        ("print('#a', flush=True); import os; os.abort()", 1, False, -6),
        ("print('#a', flush=True); import time; time.sleep(600)", 1, True, -9),
        ("print('what?', flush=True); import time; time.sleep(600)", 0, False, -9),
    ],
)
def test_how_a_child_ends(capfd, program, told, hung, status):
    ended = watched([sys.executable, "-c", program], 5.0 if hung else 60.0)
    assert (ended.told, ended.hung, ended.status) == (told, hung, status)
    assert capfd.readouterr().out.split() == ["a", "b"][:told]
