"""Ten thousand shapes: whatever a program calls, what is remembered of it stays bounded."""

from __future__ import annotations

import numpy as np
import pytest
from fake_background import FakeBackground, faster, learner

from tilewright import ops
from tilewright.runtime.monitor import MONITOR
from tilewright.runtime.trigger import Trigger

SHAPES = 10_000


@pytest.mark.usefixtures("table")
def test_ten_thousand_shapes_leave_tables_and_queues_bounded(table, tmp_path):
    """Views of one buffer: each has columns and a depth of its own, and all share one generic kernel."""
    MONITOR.reset()
    learning = learner(table, FakeBackground(tmp_path, found=faster), trigger=Trigger(count=1, payback=None))
    weight = np.random.default_rng(0).standard_normal((1200, 1200), np.float32)
    x, y = weight[:1].copy(), np.empty((1, 1200), np.float32)
    longest = 0
    for n in range(SHAPES):
        columns, depth = 1040 + n // 100, 1040 + n % 100
        ops.linear(x[:, :depth], weight[:columns, :depth], out=y[:, :columns])
        if n % 1000 == 999:
            np.testing.assert_allclose(
                y[0, :columns], weight[:columns, :depth].astype(np.float64) @ x[0, :depth], atol=1e-3
            )
            learning._collect()
            longest = max(longest, len(learning._agenda))
    assert len(table) <= table.capacity
    assert table.evictions >= SHAPES - table.capacity
    assert 0 < longest <= table.capacity
    assert len(MONITOR.counts()) == 1  # ranges, and no sizes
    assert learning.step()
    assert learning.status().searches == 1
