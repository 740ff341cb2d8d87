"""Whole designs of products on the matrix unit, drawn at once: decisions that belong together, from sensible grids."""

from __future__ import annotations

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.gpu.default import deepest_ring, shapes
from tilewright.design.gpu.product import Product
from tilewright.design.gpu.resources import ROW_BYTES, beside
from tilewright.design.gpu.straight import MOST_ROWS, straight
from tilewright.design.gpu.straight_mutations import WARPS
from tilewright.design.pick import Pick


def draw_product(p: Product, facts: Facts, pick: Pick) -> Design:
    """A design of a product, legal or not."""
    few = p.size(p.m, facts) <= 256
    swap = pick("swap", (few, not few) if few else (False,))
    row, column = (p.n.name, p.m.name) if swap else (p.m.name, p.n.name)
    rows, columns, groups, schedule = pick("shape", shapes(p, facts, swap))
    k = p.k.name
    decisions: dict[str, Choice] = {f"atom.{d.name}": "wgmma" for d in p.dots}
    decisions |= {
        f"tile.{row}": rows,
        f"tile.{column}": columns,
        f"tile.{k}": pick("depth", (1, 2, 4) if few else (1, 2)) * ROW_BYTES // p.itemsize,
    }
    decisions |= {"warpgroups": groups, "stages": 2}
    lean = few and (swap or pick("lean", (True, False)))  # blocks that come and go, one warp that copies
    if swap:
        decisions["swap"] = True
    if lean:
        decisions["producer"] = "warp"
    if schedule != "cooperative":
        decisions["schedule"] = schedule
    decisions |= _distribution(p, facts, lean, pick)
    whole = f"split.{k}" not in decisions
    if lean and not swap and whole and rows < p.size(p.m, facts) <= 2 * rows:
        decisions[f"cluster.{p.m.name}"] = 2  # blocks with other rows share the weights
    if pick("inflight", (1, 0)) == 0:
        decisions["inflight"] = 0
    deepest = deepest_ring(p, Design.of(decisions), facts)
    decisions["stages"] = max(2, deepest // pick("depth of ring", (1, 2)))
    return Design.of(decisions)


def draw_straight(p: Product, facts: Facts, pick: Pick) -> Design:
    """A design whose operands go straight to registers, legal or not."""
    along, across = pick("warps", WARPS)
    columns, chunks = pick("columns", (1, 2, 4)), pick("chunks", (4, 8, 2, 16, 1))
    lanes = p.size(p.m, facts) <= MOST_ROWS["fma"] and pick("atom", ("fma", "mma")) == "fma"
    design = straight(p, facts, columns, along, across, chunks, "fma" if lanes else "mma")
    resident, ahead = pick("resident", (2, 4, 1, 3, 8)), pick("ahead", (0, 2, 4, 8))
    more = {**({"resident": resident} if resident > 1 else {}), **({"stages": ahead} if ahead else {})}
    return Design.of({**dict(design.decisions), **more})


def _distribution(p: Product, facts: Facts, lean: bool, pick: Pick) -> dict[str, Choice]:
    """Parts of the sum, clusters, order of tiles, and how results leave."""
    decisions: dict[str, Choice] = {}
    parts = pick("split", (1, 2, 3, 4, 6, 8) if p.k.over in facts.fixed else (1,))
    if parts > 1:
        how = pick("how", ("cluster", "two_pass", "atomic"))
        decisions |= {f"split.{p.k.name}": parts, f"how.{p.k.name}": how}
        if how == "two_pass" and not lean and pick("pairs", (True, False)):
            decisions |= {f"cluster.{p.m.name}": 2, **{f"store.{t}": "tma" for t in p.outputs}}
        return decisions
    if lean:
        weights = [o.tensor for o in p.operands if o.axis == p.n.name]
        return {f"cache.{t}": "evict_first" for t in weights} if pick("cache", (True, False)) else {}
    axis = pick("cluster", (p.m.name, p.n.name, ""))
    if axis:
        decisions[f"cluster.{axis}"] = 2
    order = pick("order", ("grouped", "hilbert", "row"))
    decisions |= {"persistent": True, "grid.order": order}
    if order == "grouped":
        decisions["grid.group"] = pick("group", (8, 16, 4))
    if pick("store", ("tma", "direct")) == "tma":
        decisions |= {f"store.{t}": "tma" for t in p.outputs}
    return decisions | {f"early.{t}": True for t in beside(p) if pick("early", (True, False))}
