"""Operands that are timed begin far apart in their pages, whatever the heap does."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.runtime.checks import checks_for
from tilewright.runtime.guard import PAGE
from tilewright.runtime.place import Place, apart
from tilewright.runtime.subject import Subject


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 64])
def test_starts_are_lines_as_far_apart_as_can_be(count):
    starts = sorted(apart(count))
    assert all(start % 64 == 0 and start < PAGE for start in starts)
    gaps = [after - start for start, after in zip(starts, [*starts[1:], PAGE], strict=True)]
    assert min(gaps) > PAGE / count - 64


@pytest.mark.parametrize("sizes", [{"M": 8, "D": 1000}, {"M": 64, "D": 1024}])
def test_loads_of_a_row_are_to_other_places_of_a_page_than_stores_to_it(sizes):
    """At equal steps through x and y, a load is at least a quarter of a page away from the stores just before it."""
    subject = Subject.of("softmax", sizes, "f32", threads=1)
    (check, *_) = checks_for(subject, 0)
    for _ in range(3):
        place = Place(check, frozenset(subject.outputs), guarded=False)
        x, y = (place.arrays[n].ctypes.data for n in ("x", "y"))
        assert PAGE // 4 <= (y - x) % PAGE <= PAGE - PAGE // 4
        assert np.array_equal(place.arrays["x"], check.operands.tensors["x"])
