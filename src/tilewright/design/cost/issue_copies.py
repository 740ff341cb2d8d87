"""What it costs to issue the copies into a panel."""

from __future__ import annotations

from tilewright.design.cost.forms import HALF_TO_F32, Forms, block_shuffles
from tilewright.design.cost.schedule import Copy
from tilewright.design.cost.slots import Slots
from tilewright.design.panels import ROWS, copied_depth
from tilewright.language import ir


def issue_copy(forms: Forms, copy: Copy, slots: Slots) -> None:
    """Rows of a panel: read along the sum and transposed in registers, or as they lie; 32-bit lanes either way."""
    t, rates = forms.t, forms.rates
    load = forms.program.loads[copy.tensor][0]
    assert isinstance(load.expr, ir.Load)
    itemsize = load.type.dtype.bytes
    rows, depth = t.points[copy.lane], copied_depth(copy.layout, itemsize)
    pair = 1 if copy.layout == "panel" else 4 // itemsize
    words = depth // pair
    along = [load.expr.ref.index[d] for d in t.unit(copy.tensor)]
    size, written = words * pair * itemsize, 4 if copy.widened or pair > 1 else itemsize
    if copy.layout == "tile":
        slots.loads(rates, size, rows)
        slots.stores(rates, size, rows)
        return
    block = min(rows, ROWS) if rows % ROWS == 0 or rows < ROWS else rows
    width = min(t.full, 1 << max(0, (min(block, t.full) - 1).bit_length()))
    chunks = -(-rows // width)
    if copy.depth in along:
        slots.loads(rates, size, rows, forms.crossing(load.expr.ref, size))
        shuffles = block_shuffles(width, words) if width > 1 else 1.5 * words
        slots.shuffles(rates, words, chunks * shuffles)
    else:
        slots.loads(rates, width * itemsize, chunks * depth)
        if pair > 1:
            slots.shuffles(rates, width, 2 * (pair - 1) * chunks * words)
    if copy.widened:
        slots.vectors(rates, words, HALF_TO_F32 * rows)
    slots.stores(rates, width * written, chunks * words)


__all__ = ["issue_copy"]
