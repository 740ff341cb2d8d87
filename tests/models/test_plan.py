"""Recording and running: launches in order, activations shared by role."""

from __future__ import annotations

import numpy as np

from tilewright.models.plan import Plan, Recorder, Workspace


def test_workspace_reuses_memory_of_a_role():
    workspace = Workspace()
    large, small = workspace.take("h", (4, 8), np.float32), workspace.take("h", (2, 3), np.float16)
    assert small.shape == (2, 3)
    assert np.shares_memory(large, small)
    assert not np.shares_memory(large, workspace.take("x", (4, 8), np.float32))


def test_workspace_grows_without_touching_older_views():
    workspace = Workspace()
    small = workspace.take("h", (2,), np.float32)
    small[:] = 7
    assert not np.shares_memory(small, workspace.take("h", (200,), np.float32))
    assert small.tolist() == [7, 7]


def test_recorded_launches_read_memory_anew(plain):
    run = Recorder(plain, Workspace(), np.float32)
    x, weight = np.ones((1, 3), np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)
    y = run.linear("y", x, weight)
    plan = Plan(x, x, x, y, tuple(run.launches))
    plan.run()
    assert y.tolist() == [[3, 12]]
    x[:] = 2
    plan.run()
    assert y.tolist() == [[6, 24]]
