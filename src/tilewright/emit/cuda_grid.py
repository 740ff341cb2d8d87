"""Which tiles a block works on: from its number to the positions of the axes, in the order that the loop says."""

from __future__ import annotations

import math

from tilewright.emit.cuda_abi import Grid
from tilewright.emit.cuda_plan import Plan, number
from tilewright.emit.cuda_text import Text, cname
from tilewright.language import ir


def grid_of(plan: Plan, loop: ir.Loop) -> Grid:
    """The launch that covers a loop bound to the grid."""
    spans = {a.over: plan.trips(a) for a in plan.spread}
    axes = tuple((plan.root(a.name), plan.extent(a.name) // spans.get(a.name, 1)) for a in loop.axes)
    clusters = tuple((n, spans[a.name]) for n, a in enumerate(loop.axes) if a.name in spans)
    return Grid(axes, plan.splits, plan.cluster, clusters, bool(ir.note(loop.notes, "persistent")))


def tile_counts(plan: Plan, text: Text, loop: ir.Loop) -> None:
    """How many tiles each axis has: written once, before the roles part."""
    text.line(f"const int {', '.join(f'{_count(a)} = {_tiles(plan, a)}' for a in loop.axes)};")


def _count(axis: ir.Axis) -> str:
    return f"tiles_{axis.name}"


def _tiles(plan: Plan, axis: ir.Axis) -> str:
    size, step = plan.size(plan.root(axis.name)), plan.extent(axis.name)
    if size.isdigit():
        return str(math.ceil(int(size) / step))
    return size if axis.each else f"ceil_div({size}, {step})"


def _grid_splits(plan: Plan) -> int:
    return plan.splits if plan.split is not None and ir.note(plan.split.notes, "bind") == "grid" else 1


def items(plan: Plan, text: Text, loop: ir.Loop) -> str:
    """C++ of the loop over this block's items; nothing where it has just one, which is then declared."""
    total = " * ".join(_count(a) for a in loop.axes) + (f" * {_grid_splits(plan)}" if _grid_splits(plan) > 1 else "")
    block, item = _block(plan), item_name(plan, loop)
    if _asked_once(plan, loop):
        return ""
    if ir.note(loop.notes, "drawn"):
        return f"for (int {item} = {block}; {item} < {total};)"
    if not ir.note(loop.notes, "persistent"):
        text.line(f"const int {item} = {block};")
        return ""
    stride = f"gridDim.x / {plan.cluster}" if plan.cluster > 1 else "gridDim.x"
    return f"for (int {item} = {block}; {item} < {total}; {item} += {stride})"


def _block(plan: Plan) -> str:
    """C++ of the number of a block, or of the cluster that it belongs to."""
    return f"blockIdx.x / {plan.cluster}" if plan.cluster > 1 else "blockIdx.x"


def _asked_once(plan: Plan, loop: ir.Loop) -> bool:
    """Whether a block has one tile, and only one line asks which it is."""
    several = ir.note(loop.notes, "persistent") or ir.note(loop.notes, "drawn")
    return len(loop.axes) == 2 and not several and not plan.scratch and not any(a.each for a in loop.axes)


def item_name(plan: Plan, loop: ir.Loop) -> str:
    """An item is a part of a tile's sum, or a tile, or what is drawn."""
    return "item" if _grid_splits(plan) > 1 or ir.note(loop.notes, "drawn") else "tile"


def item_count(loop: ir.Loop) -> str:
    """C++ of how many items a grid without splits has."""
    return " * ".join(_count(a) for a in loop.axes)


def positions(plan: Plan, text: Text, loop: ir.Loop) -> None:
    """The part of the sum, the tile, and where it begins along each axis."""
    splits = _grid_splits(plan)
    if splits > 1:
        text.line(f"const int part = item % {splits};")
        text.line(f"const int tile = item / {splits};")
    tiled = [a for a in loop.axes if not a.each]
    each = [a for a in loop.axes if a.each]
    inside = _block(plan) if _asked_once(plan, loop) else "tile"
    if each:
        area = " * ".join(_count(a) for a in tiled)
        _row_order(plan, text, each, f"tile / ({area})")
        inside = f"tile % ({area})"
    if len(tiled) != 2:
        _row_order(plan, text, tiled, inside)
        return
    i, j = tiled
    order = str(ir.note(loop.notes, "order", "row"))
    call = f"grouped_order<{number(loop, 'group', 8)}>" if order == "grouped" else f"{order}_order"
    text.line(f"const Tile2 at = {call}({inside}, {_count(i)}, {_count(j)});")
    text.line(
        f"const int {cname(i.name)} = at.i * {plan.extent(i.name)}, {cname(j.name)} = at.j * {plan.extent(j.name)};"
    )


def _row_order(plan: Plan, text: Text, axes: list[ir.Axis], inside: str) -> None:
    inner = ""
    for n, a in reversed(list(enumerate(axes))):
        place = (f"({inside})" if " " in inside else inside) + inner + (f" % {_count(a)}" if n else "")
        step = plan.extent(a.name)
        text.line(
            f"const int {cname(a.name)} = {place};" if step == 1 else f"const int {cname(a.name)} = {place} * {step};"
        )
        inner += f" / {_count(a)}"


def chain_positions(plan: Plan, text: Text, loop: ir.Loop) -> None:
    """The item of a chain: single positions are heads, each with its tiles of rows; heads may walk together."""
    row, each, item = loop.axes[-1], loop.axes[:-1], item_name(plan, loop)
    tiles, order = _count(row), str(ir.note(loop.notes, "order", "row"))
    if order == "grouped" and each:
        heads = " * ".join(_count(a) for a in each)
        text.line(f"const Tile2 at = grouped_order<{number(loop, 'group', 8)}>({item}, {heads}, {tiles});")
        head, nth = "at.i", "at.j"
    else:
        head, nth = f"{item} / {tiles}", f"{item} % {tiles}"
    if ir.note(loop.notes, "descending"):
        nth = f"({tiles} - 1 - {nth})"
    text.line(f"const int {cname(row.name)} = ({nth}) * {plan.extent(row.name)};")
    _row_order(plan, text, list(each), head)
