"""The level of logits that a token has to reach to be drawn: the steps of a search for it, see `operators.levels`.

All operands and results are f32. `shares` [J] rise from 0 and stay below 1: where levels lie between two ends.
"""

from __future__ import annotations

from tilewright import operators
from tilewright.language.dtypes import f32
from tilewright.ops.backend import bind
from tilewright.ops.op import Bound, Tensor, op
from tilewright.ops.operands import Operands
from tilewright.runtime.buffer import Buffer

_F32 = (f32,)
_WHY = "B is that of the first operand"


@op
def level_begin(
    scores: Tensor, temperatures: Tensor, cuts: Tensor, shares: Tensor, *,
    out: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
) -> Bound[tuple[Tensor, ...]]:  # fmt: skip
    """scores [B, C] of parts -> (top [B], low [B], high [B], levels [B, J]).

    top is the largest score, low lies cuts[b] (at most 0) temperatures[b] from it, high just above it.
    """
    given = Operands("level_begin")
    score = given.expect("scores", scores, ("B", "C"), _F32)
    batch = score.shape[:1]
    inputs = {
        "score": score,
        "temperatures": given.expect("temperatures", temperatures, batch, _F32, _WHY),
        "cuts": given.expect("cuts", cuts, batch, _F32, _WHY),
        "shares": given.expect("shares", shares, ("J",), _F32),
    }
    shapes = {"top": batch, "low": batch, "high": batch, "levels": (*batch, *inputs["shares"].shape)}
    return _bound(operators.level_begin, given, scores, inputs, shapes, out)


@op
def level_again(
    top: Tensor, low: Tensor, kept: Tensor, portions: Tensor, shares: Tensor, *,
    out: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Bound[tuple[Tensor, ...]]:  # fmt: skip
    """-> (least [B], high [B], levels [B, J]): levels from low[b] to just above top[b], for a search by mass.

    least is portions[b] of kept[b]; where portions[b] is 1, more than there is, so that low[b] stays.
    """
    given = Operands("level_again")
    first = given.expect("top", top, ("B",), _F32)
    rest = {"low": low, "kept": kept, "portions": portions}
    inputs = {"top": first, **{n: given.expect(n, x, first.shape, _F32, _WHY) for n, x in rest.items()}}
    inputs["shares"] = given.expect("shares", shares, ("J",), _F32)
    shapes = {"least": first.shape, "high": first.shape, "levels": (*first.shape, *inputs["shares"].shape)}
    return _bound(operators.level_again, given, top, inputs, shapes, out)


@op
def level_parts(
    logits: Tensor, levels: Tensor, top: Tensor, temperatures: Tensor, *, out: tuple[Tensor, Tensor] | None = None
) -> Bound[tuple[Tensor, ...]]:
    """logits [B, C, D] of any float type, levels [B, J] -> (counts [B, J, C], masses [B, J, C]) of each part.

    Of the logits that reach a level: how many they are, and the sum of exp((x - top[b]) / temperatures[b]).
    """
    given = Operands("level_parts")
    x = given.take("logits", logits)
    given.fit("logits", x, ("B", "C", "D"))
    batch, parts, _ = x.shape
    inputs = {
        "logits": x,
        "levels": given.expect("levels", levels, (batch, "J"), _F32, _WHY),
        "top": given.expect("top", top, (batch,), _F32, _WHY),
        "temperatures": given.expect("temperatures", temperatures, (batch,), _F32, _WHY),
    }
    shape = (batch, inputs["levels"].shape[1], parts)
    return _bound(operators.level_parts, given, logits, inputs, {"count": shape, "mass": shape}, out)


@op
def level_join(
    counts: Tensor, masses: Tensor, levels: Tensor, fewest: Tensor, least: Tensor, shares: Tensor, *,
    out: tuple[Tensor, Tensor, Tensor, Tensor],
) -> Bound[tuple[Tensor, ...]]:  # fmt: skip
    """counts, masses [B, J, C], levels [B, J] -> (low [B], high [B], kept [B], finer [B, J]).

    low and high hold the ends of the search and are moved: low up to the highest level that at least fewest[b] tokens
    of a mass of least[b] reach, high down to the lowest other one. kept is the mass that reaches low, finer are levels
    between both.
    """
    given = Operands("level_join")
    count = given.expect("counts", counts, ("B", "J", "C"), _F32)
    batch, number = count.shape[:1], count.shape[1:2]
    inputs = {
        "count": count,
        "mass": given.expect("masses", masses, count.shape, _F32, "the shape of counts"),
        "levels": given.expect("levels", levels, (*batch, *number), _F32, "B and J are those of counts"),
        "fewest": given.expect("fewest", fewest, batch, _F32, _WHY),
        "least": given.expect("least", least, batch, _F32, _WHY),
        "shares": given.expect("shares", shares, number, _F32, "J is that of counts"),
    }
    return _bound(
        operators.level_join, given, counts, inputs,
        {"low": batch, "high": batch, "kept": batch, "finer": (*batch, *number)}, out,
    )  # fmt: skip


def _bound(
    operator: operators.Operator, given: Operands, like: Tensor, inputs: dict[str, Buffer],
    shapes: dict[str, tuple[int, ...]], out: tuple[Tensor, ...] | None,
) -> Bound[tuple[Tensor, ...]]:  # fmt: skip
    """The launch of `operator` into `out`, or into new tensors like `like`; none where there is nothing."""
    made, written = [], dict[str, Buffer]()
    for (name, shape), place in zip(shapes.items(), out or (None,) * len(shapes), strict=True):
        tensor, written[name] = given.output(place, like, shape, f32, name=name, dtypes=_F32)
        made.append(tensor)
    if any(0 in b.shape for b in inputs.values()):
        return Bound((), tuple(made))
    return Bound((bind(operator, {**inputs, **written}),), tuple(made))
