"""The choice of the next token of each sequence, in two passes; what comes before it, and what is told of it."""

from __future__ import annotations

from tilewright import operators
from tilewright.errors import ArgumentError
from tilewright.language.dtypes import DType, f32, i32
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


@op
def penalise(
    logits: Tensor, marks: Tensor, repetitions: Tensor, frequencies: Tensor, presences: Tensor, *,
    out: Tensor | None = None,
) -> Bound[Tensor]:  # fmt: skip
    """logits[B, V] -> f32 [B, V], lower for tokens that sequence b has by marks[b] (i32, see `operators.penalties`).

    Those with a mark are divided (if above 0) or multiplied by repetitions[b]; those that were chosen lose
    frequencies[b] for each time and presences[b] once. All three are f32 [B].
    """
    given = Operands("penalise")
    x = given.take("logits", logits)
    given.fit("logits", x, ("B", "V"))
    inputs = {"logits": x, "marks": given.expect("marks", marks, x.shape, (i32,), "the shape of logits")}
    for name, value in (("repetitions", repetitions), ("frequencies", frequencies), ("presences", presences)):
        inputs[name] = given.expect(name, value, x.shape[:1], (f32,), "B is that of logits")
    out, y = given.output(out, logits, x.shape, f32, dtypes=(f32,))
    return Bound(() if 0 in x.shape else (bind(operators.penalise, {**inputs, "y": y}),), out)


@op
def mark(chosen: Tensor, *, out: Tensor) -> Bound[Tensor]:
    """Count that token chosen[b] (i32 [B]) was chosen, in marks `out` (i32 [B, V]); the others stay as they are."""
    given = Operands("mark")
    token = given.expect("chosen", chosen, ("B",), (i32,))
    marks = given.expect("out", out, (*token.shape, "V"), (i32,), "B is that of chosen")
    given.writable("out", marks)
    if marks.overlaps(token):
        given.refuse("out", marks, "shares memory with chosen; give it memory of its own")
    return Bound(() if 0 in marks.shape else (bind(operators.mark, {"chosen": token, "marks": marks}),), out)


@op
def likeliest_parts(
    logits: Tensor, k: int, *, out: tuple[Tensor, Tensor, Tensor] | None = None
) -> Bound[tuple[Tensor, ...]]:
    """Of each part of logits[B, C, D] -> (the k largest f32 [B, C, k], their tokens i32 [B, C, k], f32 [B, C]).

    Largest first, the lowest of equal tokens first, NaN as +inf; -inf at token 2^31 - 1 where a part has fewer. Last is
    log(sum(exp(logits))) of the part.
    """
    given = Operands("likeliest_parts")
    x = given.take("logits", logits)
    given.fit("logits", x, ("B", "C", "D"))
    best = (*x.shape[:2], k)
    shapes = {"value": (best, f32), "token": (best, i32), "part": (x.shape[:2], f32)}
    return _several(operators.likeliest_parts, given, logits, {"logits": x}, shapes, k, out)


@op
def likeliest_join(
    values: Tensor, tokens: Tensor, parts: Tensor, logits: Tensor, chosen: Tensor, k: int, *,
    out: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
) -> Bound[tuple[Tensor, ...]]:  # fmt: skip
    """What `likeliest_parts` gave, joined: values, tokens [B, N], parts [B, C] -> (f32 [B, k], i32 [B, k], lse, logit).

    The k largest and their tokens; lse f32 [B], log(sum(exp(parts))); logit f32 [B], logits[b, chosen[b]].
    """
    given = Operands("likeliest_join")
    value = given.expect("values", values, ("B", "N"), (f32,))
    batch, why = value.shape[:1], "B is that of values"
    inputs = {
        "value": value,
        "token": given.expect("tokens", tokens, value.shape, (i32,), "the shape of values"),
        "part": given.expect("parts", parts, (*batch, "C"), (f32,), why),
        "logits": given.expect("logits", logits, (*batch, "V"), why=why),
        "chosen": given.expect("chosen", chosen, batch, (i32,), why),
    }
    best = (*batch, k)
    shapes = {"values": (best, f32), "tokens": (best, i32), "lse": (batch, f32), "logit": (batch, f32)}
    return _several(operators.likeliest_join, given, values, inputs, shapes, k, out)


def _several(
    operator: operators.Operator, given: Operands, like: Tensor, inputs: dict[str, Buffer],
    shapes: dict[str, tuple[tuple[int, ...], DType]], k: int, out: tuple[Tensor, ...] | None,
) -> Bound[tuple[Tensor, ...]]:  # fmt: skip
    """The launch of `operator` into `out`, or into new tensors like `like`; none where there is nothing."""
    if k < 1:
        raise ArgumentError(f"{given.name}: k={k}; take at least 1")
    made, written = [], dict[str, Buffer]()
    for (name, (shape, kind)), place in zip(shapes.items(), out or (None,) * len(shapes), strict=True):
        tensor, written[name] = given.output(place, like, shape, kind, name=name, dtypes=(kind,))
        made.append(tensor)
    if any(0 in b.shape for b in inputs.values()):
        return Bound((), tuple(made))
    return Bound((bind(operator, {**inputs, **written}, {}, {"k": k}),), tuple(made))
