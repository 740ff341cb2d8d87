"""The choice of the next token of each sequence, in two passes."""

from __future__ import annotations

from tilewright import operators
from tilewright.errors import ArgumentError
from tilewright.language.dtypes import f32, i32
from tilewright.ops.backend import bind
from tilewright.ops.op import Bound, Tensor, op
from tilewright.ops.operands import Operands
from tilewright.runtime.buffer import Buffer


@op
def sample_parts(
    logits: Tensor,
    temperatures: Tensor | None = None,
    seeds: Tensor | None = None,
    places: Tensor | None = None,
    floors: Tensor | None = None,
    *,
    out: tuple[Tensor, Tensor] | None = None,
) -> Bound[tuple[Tensor, Tensor]]:
    """The best token of each part of the vocabulary: logits[B, C, D] -> (scores f32 [B, C], tokens i32 [B, C]).

    Token c D + d of sequence b scores logits[b, c, d] at temperatures[b] (f32) 0, and is drawn from the softmax of
    logits / temperature above 0, by seeds[b] (i32) and places[b] (i32, where the last token stands). All three are
    given, or none: then every temperature is 0. NaN counts as +inf. A token whose logit is below floors[b] (f32) scores
    -inf, where floors are given.
    """
    given = Operands("sample_parts")
    x = given.take("logits", logits)
    given.fit("logits", x, ("B", "C", "D"))
    batch, parts, _ = x.shape
    why = "B is that of logits"
    drawn = {"temperatures": (temperatures, f32), "seeds": (seeds, i32), "places": (places, i32)}
    if len({value is None for value, _ in drawn.values()}) > 1:
        missing = next(name for name, (value, _) in drawn.items() if value is None)
        raise ArgumentError(f"sample_parts: {missing} is missing; give temperatures, seeds and places, or none of them")
    keys: dict[str, Buffer] = {}
    for name, (value, kind) in drawn.items():
        keys |= given.maybe(name, value, (batch,), (kind,), why)
    keys |= given.maybe("floors", floors, (batch,), (f32,), why)
    first, second = out or (None, None)
    first, score = given.output(first, logits, (batch, parts), f32, name="out[0]", dtypes=(f32,))
    second, token = given.output(second, logits, (batch, parts), i32, name="out[1]", dtypes=(i32,))
    if 0 in x.shape:
        return Bound((), (first, second))
    return Bound(
        (bind(operators.sample_parts, {"logits": x, **keys, "score": score, "token": token}),), (first, second)
    )


@op
def sample_join(
    scores: Tensor, tokens: Tensor, *, out: tuple[Tensor, Tensor, Tensor, Tensor]
) -> Bound[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The best of all parts: scores f32 [B, C], tokens i32 [B, C] -> (chosen, peaks, places, lengths), each [B].

    chosen (i32) and peaks (f32, its score) are written; places and lengths (i32) are counted up by one.
    """
    given = Operands("sample_join")
    score = given.expect("scores", scores, ("B", "C"), (f32,))
    token = given.expect("tokens", tokens, score.shape, (i32,), "the shape of scores")
    batch = score.shape[:1]
    names, kinds = ("chosen", "peak", "place", "length"), (i32, f32, i32, i32)
    written = {
        name: given.output(x, scores, batch, kind, name=name, dtypes=(kind,))[1]
        for name, x, kind in zip(names, out, kinds, strict=True)
    }
    if 0 in score.shape:
        return Bound((), out)
    return Bound((bind(operators.sample_join, {"score": score, "token": token, **written}),), out)
