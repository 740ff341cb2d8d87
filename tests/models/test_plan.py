"""Recording and running: launches in order, activations shared by role."""

from __future__ import annotations

import numpy as np

from tilewright.models.memory import HOST
from tilewright.models.plan import Inputs, Plan, Recorder, Workspace


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
    plan = Plan(Inputs(HOST, 1, 2), y, tuple(run.launches))
    plan.run()
    assert y.tolist() == [[3, 12]]
    x[:] = 2
    plan.run()
    assert y.tolist() == [[6, 24]]


def test_what_a_pass_is_told_is_one_piece_of_memory_and_each_part_of_it_aligned_alike():
    """Kernels are made for how operands are aligned: which it is may not depend on how many tokens there are."""
    for batch, tokens in ((1, 1), (1, 31), (1, 32), (1, 33), (3, 1), (1, 512)):
        inputs = Inputs(HOST, batch, tokens)
        ids, positions, lengths = np.arange(batch * tokens) + 7, np.arange(batch * tokens) + 900, np.arange(batch) + 40
        inputs.fill(ids, positions.reshape(batch, tokens), lengths)
        assert inputs.ids.tolist() == ids.tolist()
        assert inputs.positions.tolist() == positions.reshape(batch, tokens).tolist()
        assert inputs.lengths.tolist() == lengths.tolist()
        start = inputs.ids.ctypes.data
        assert all((x.ctypes.data - start) % 128 == 0 for x in (inputs.positions, inputs.lengths))
        inputs.positions[...] = 5
        assert (inputs.ids.tolist(), inputs.lengths.tolist()) == (ids.tolist(), lengths.tolist())
