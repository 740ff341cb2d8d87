"""Penalties: the interpreter against the reference, and both against the choice on the host."""

import numpy as np
from cases import STEPS, Case, memories, thorough
from hypothesis import given
from hypothesis import strategies as st

from tilewright import operators
from tilewright.engine.sampling import Sampler, SamplingParams
from tilewright.operators.penalties import CHOSEN, PROMPTED

F32, I32 = np.dtype(np.float32), np.dtype(np.int32)
SOME = st.integers(1, 9)


@thorough
@given(memories, STEPS, SOME, SOME)
def test_what_a_sequence_has_is_lowered(memory, steps, b, v):
    inputs = {
        "logits": memory.normal((b, v)),
        "marks": memory.laid_out(memory.random.integers(0, 7, (b, v)).astype(I32)),
        "repetitions": np.abs(memory.normal((b,))) + F32.type(0.25),
        "frequencies": memory.normal((b,)),
        "presences": memory.normal((b,)),
    }
    Case(operators.penalise, inputs, {"y": ((b, v), F32)}).check(memory, steps)


@thorough
@given(memories, STEPS, SOME, SOME)
def test_the_chosen_token_is_counted_and_no_other(memory, steps, b, v):
    inputs = {
        "chosen": memory.random.integers(0, v, b).astype(I32),
        "marks": memory.laid_out(memory.random.integers(0, 7, (b, v)).astype(I32)),
    }
    Case(operators.mark, inputs, {"marks": ((b, v), I32)}).check(memory, steps)


@thorough
@given(
    memories, st.sampled_from([0.5, 1.0, 1.25, 2.0]), st.sampled_from([-2.0, 0.0, 0.75]), st.sampled_from([0.0, 1.5])
)
def test_the_host_lowers_alike(memory, repetition, frequency, presence):
    """Its sampler in float64 is the reference, whatever was in the prompt and whatever it chose."""
    vocab = 12
    logits = memory.normal((vocab,))
    params = SamplingParams(
        temperature=0, repetition_penalty=repetition, frequency_penalty=frequency, presence_penalty=presence
    )
    prompt = memory.random.integers(0, vocab, 3).tolist()
    sampler = Sampler(params, prompt, vocab)
    marks = np.zeros((1, vocab), I32)
    marks[0, prompt] = PROMPTED
    rest = [np.array([x], F32) for x in (repetition, frequency, presence)]
    for _ in range(5):
        exact = operators.penalise.reference(logits[None], marks, *rest)["y"].value[0]
        token = sampler.choose(np.ascontiguousarray(logits))
        assert exact[token] == exact.max()
        marks[0, token] += CHOSEN
        if sampler.penalised:
            np.testing.assert_array_equal(sampler.marks, marks[0])
            np.testing.assert_array_equal(sampler._with_penalties(logits), operators.penalise.reference(
                logits[None], marks, *rest)["y"].value[0])  # fmt: skip
