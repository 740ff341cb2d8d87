"""Which products start while the kernel before them still runs: as steps of Llama on an H200 were shorter."""

from __future__ import annotations

import pytest

from tilewright.runtime.cuda.kernel import starts_early


@pytest.mark.parametrize(
    ("waves", "microseconds", "early"),
    [
        (1.94, 26.6, False),  # down of the 8B, one row: 4.02 ms a step and not 4.20
        (1.94, 7.6, True),  # down of the 1B: 846 us and not 850
        (5.8, 11.4, True),
        (0.85, 53.1, True),  # all blocks are there at once
        (0.97, 26.6, True),
        (3.8, 118.9, True),  # logits of sixteen rows: no difference
    ],
)
def test_products_of_llama(waves, microseconds, early):
    assert starts_early(waves, microseconds * 1e-6) is early
