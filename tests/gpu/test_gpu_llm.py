"""Models on a GPU: logits against transformers, tokens fed back on the device, one request alone or among others."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from model_folders import MODELS, make_model

import tilewright as tw
from tilewright.engine.sampling import Sampler, _candidates
from tilewright.errors import ArgumentError, MachineError, OutOfDeviceMemory
from tilewright.models.decoder import Decoder
from tilewright.models.memory import memory_of
from tilewright.models.plan import LEVELS, Choice, Filters, Recorder, Workspace
from tilewright.observe.record import Recorder as TraceRecorder

PROMPT = [5, 17, 200, 3, 99, 42, 8, 8, 250, 31, 77, 1, 64, 128, 254, 19, 23]
PROMPTS = [PROMPT, PROMPT[3:9], PROMPT[::-1], PROMPT[:1], PROMPT * 5]


@pytest.fixture(scope="module", params=sorted(MODELS))
def model(request, tmp_path_factory):
    """(folder, transformers' model) in f32."""
    folder = tmp_path_factory.mktemp(request.param)
    return folder, make_model(request.param, folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder of a Llama in bf16."""
    folder = tmp_path_factory.mktemp("small")
    make_model("llama-rope3", folder, "bfloat16")
    return folder


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].to(torch.float64).numpy()


def rms(x):
    return float(np.sqrt(np.mean(x * x)))


def tokens(llm, prompts, **params):
    made = [
        tw.SamplingParams(**{"temperature": 0, "max_tokens": 24, "ignore_eos": True, "seed": n, **params})
        for n in range(len(prompts))
    ]
    return [c.token_ids for c in llm.generate(prompts, made)]


def test_logits_equal_transformers(model):
    folder, theirs = model
    wanted = logits_of(theirs, PROMPT)
    found = Decoder.from_folder(folder, device="cuda").logits([PROMPT])[0]
    assert np.max(np.abs(found - wanted)) <= 1e-4 * np.max(np.abs(wanted))


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_half_precision_no_further_than_twice_transformers(name, half, tmp_path):
    theirs = make_model(name, tmp_path, half)
    rough = logits_of(theirs, PROMPT)
    exact = logits_of(theirs.to(torch.float64), PROMPT)
    found = Decoder.from_folder(tmp_path, device="cuda").logits([PROMPT])[0]
    assert rms(found - exact) <= 2 * rms(rough - exact)
    assert np.max(np.abs(found - exact)) <= 2 * np.max(np.abs(rough - exact))


def test_a_cache_of_8_bits_moves_logits_by_less_than_its_rounding(model):
    """Keys and values are off by one part in 16 at most, as on a CPU; a step reads what the prompt wrote."""
    folder, theirs = model
    wanted = logits_of(theirs, PROMPT)
    decoder = Decoder.from_folder(folder, device="cuda", kv_cache="fp8")
    found = decoder.logits([PROMPT])[0]
    assert 0 < rms(found - wanted) < 2.0**-4 * np.std(wanted)
    cache = decoder.new_cache(1, 64)
    decoder.prefill(cache, 0, PROMPT[:-1])
    assert rms(decoder.decode(cache, PROMPT[-1:]) - found[-1:]) < 2.0**-6 * np.std(wanted)


def test_what_lands_on_the_host_is_what_lies_on_the_gpu():
    """Of any type, larger or smaller than what landed before; each read overwrites the last one's values."""
    gpu, chance = memory_of("cuda"), np.random.default_rng(0)
    landing, before = gpu.landing(), None
    for shape, dtype in (((3, 5), np.float32), ((1, 40_000), np.float32), ((7,), np.int32), ((2, 9), np.float16)):
        values = (100 * chance.standard_normal(shape)).astype(dtype)
        found = landing.read(gpu.holding(values))
        np.testing.assert_array_equal(found, values)
        before = found if before is None or found.nbytes > before.nbytes else before
    assert np.shares_memory(before, found)


def test_greedy_tokens_equal_transformers(model):
    folder, theirs = model
    with torch.no_grad():
        ids = torch.tensor([PROMPT])
        wanted = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False, eos_token_id=-1
        )[0, len(PROMPT) :].tolist()
    llm = tw.LLM(folder, device="cuda", max_batch=1)
    assert tokens(llm, [PROMPT], max_tokens=32)[0] == wanted


def test_two_runs_give_the_same_bits(small):
    first, second = (Decoder.from_folder(small, device="cuda").logits([PROMPT * 3])[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()
    runs = [tokens(tw.LLM(small, device="cuda"), PROMPTS, temperature=0.8) for _ in range(2)]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("name", ["llama-rope3", "mistral-window", "qwen3"])
def test_alone_or_in_a_batch_the_same_tokens(name, temperature, tmp_path, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_NUMERICS", "pinned")
    make_model(name, tmp_path, "bfloat16")
    llm = tw.LLM(tmp_path, device="cuda", max_batch=4)
    together = tokens(llm, PROMPTS, temperature=temperature)
    alone = []
    for n, prompt in enumerate(PROMPTS):
        params = tw.SamplingParams(temperature=temperature, max_tokens=24, ignore_eos=True, seed=n)
        alone.append(llm.generate([prompt], params)[0].token_ids)
    assert together == alone


PENALTIES = [{"repetition_penalty": 1.4}, {"frequency_penalty": 0.5, "presence_penalty": -0.25},
             {"repetition_penalty": 0.7, "presence_penalty": 1.5}]  # fmt: skip


def test_log_probabilities_are_those_of_the_logits(small):
    llm = tw.LLM(small, device="cuda", max_batch=4)
    ways = [{"logprobs": 2}, {"logprobs": 20, "temperature": 1.2, "seed": 3}, {"logprobs": 0, **PENALTIES[0]}, {}]
    made = [tw.SamplingParams(**{"temperature": 0, "max_tokens": 16, "ignore_eos": True, **way}) for way in ways]
    decoder = Decoder.from_folder(small, device="cuda")
    for prompt, params, found in zip(PROMPTS, made, llm.generate(PROMPTS[:4], made), strict=False):
        if params.logprobs is None:
            assert found.logprobs is None
            continue
        rows = decoder.logits([[*prompt, *found.token_ids]])[0][len(prompt) - 1 : -1]
        for row, token, chances in zip(rows, found.token_ids, found.logprobs, strict=True):
            wanted = row - row.max() - np.log(np.exp((row - row.max()).astype(np.float64)).sum())
            assert token in chances and len(chances) in {params.logprobs, params.logprobs + 1}
            ids = list(chances)
            assert np.max(np.abs(wanted[ids] - list(chances.values()))) < 0.05 * np.std(row)  # two passes in bf16
            assert params.logprobs == 0 or max(chances, key=chances.get) == ids[0]


@pytest.mark.parametrize("way", PENALTIES)
def test_penalised_tokens_are_those_that_the_host_chooses(model, way):
    """Step by step from the same logits, in f32: the host looks at a whole row and counts by itself."""
    folder, _ = model
    made = {"temperature": 0, "max_tokens": 16, "ignore_eos": True, **way}
    found = tw.LLM(folder, device="cuda", max_batch=1).generate([PROMPT], tw.SamplingParams(**made))[0].token_ids
    decoder = Decoder.from_folder(folder, device="cuda")
    cache = decoder.new_cache(1, 64)
    sampler = Sampler(tw.SamplingParams(**made), PROMPT, decoder.config.vocab)
    row, wanted = decoder.prefill(cache, 0, PROMPT), []
    for _ in range(16):
        wanted.append(sampler.choose(np.array(row)))
        row = decoder.decode(cache, wanted[-1:])[0]
    assert found == wanted


def test_penalised_alone_or_among_others_the_same_tokens(small, monkeypatch):
    """Rows move as others end, steps that were queued on a wrong guess are thrown away, and counts do not show it."""
    monkeypatch.setenv("TILEWRIGHT_NUMERICS", "pinned")
    ways = [*PENALTIES, {}, {"top_p": 0.9, **PENALTIES[1]}]
    made = [
        tw.SamplingParams(temperature=0.8, max_tokens=12 + 3 * n, ignore_eos=True, seed=n, **way)
        for n, way in enumerate(ways)
    ]
    llm = tw.LLM(small, device="cuda", max_batch=4)
    together = [c.token_ids for c in llm.generate(PROMPTS, made)]
    assert together == [llm.generate([p], m)[0].token_ids for p, m in zip(PROMPTS, made, strict=True)]


@pytest.mark.parametrize("way", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_filters_that_leave_one_token_take_the_likeliest(small, way):
    llm = tw.LLM(small, device="cuda", max_batch=4)
    assert tokens(llm, [PROMPT], temperature=0.7, **way) == tokens(llm, [PROMPT])


def test_filtered_alone_or_among_others_the_same_tokens(small, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_NUMERICS", "pinned")
    ways = [{"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}, {}, {"top_k": 9, "top_p": 0.7, "min_p": 0.01}]
    made = [
        tw.SamplingParams(temperature=1.1, max_tokens=24, ignore_eos=True, seed=n, **way) for n, way in enumerate(ways)
    ]
    llm = tw.LLM(small, device="cuda", max_batch=4)
    together = [c.token_ids for c in llm.generate(PROMPTS, made)]
    assert together == [llm.generate([p], m)[0].token_ids for p, m in zip(PROMPTS, made, strict=True)]


def drawn(logits, way, places=64):
    """How often each token is drawn for each row of `logits`, by the kernels of a pass with filters."""
    memory, (rows, vocab) = memory_of("cuda"), logits.shape
    params = tw.SamplingParams(temperature=0.7, **way)
    limits = np.array([Sampler(params, [1], vocab).limits] * rows, np.float32).T
    ints = [memory.zeros((rows,), np.int32) for _ in range(3)]
    filters = Filters(
        *(memory.holding(np.ascontiguousarray(c)) for c in limits),
        memory.holding(np.arange(LEVELS, dtype=np.float32) / LEVELS), memory.zeros((rows,), np.float32),
    )  # fmt: skip
    choice = Choice(
        *ints, memory.holding(np.full(rows, 0.7, np.float32)), memory.holding(np.arange(rows, dtype=np.int32)),
        memory.zeros((rows,), np.float32), filters,
    )  # fmt: skip
    recording, run = memory.recording(), Recorder(tw.ops, Workspace(memory), np.float32)
    with tw.ops.using(recording):
        run.sample(memory.holding(logits), choice, True)
    recording.settle()
    counts, step = np.zeros((rows, vocab)), memory.replayed(run.launches)
    for _ in range(places):
        step()
        counts[np.arange(rows), memory.read(choice.tokens)] += 1
    return counts


@pytest.mark.parametrize("way", [{"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}, {"top_k": 20, "top_p": 0.9}])
@pytest.mark.parametrize("vocab", [64, 128256])
def test_draws_come_from_the_tokens_that_sorting_leaves(way, vocab):
    row = (3 * np.random.default_rng(1).standard_normal(vocab)).astype(np.float32)
    ids, weights = _candidates(row, tw.SamplingParams(temperature=0.7, **way))
    counts = drawn(np.repeat(row[None], 64, 0), way).sum(0)
    assert counts.sum() == counts[ids].sum()  # nothing else was drawn
    expected = weights / weights.sum() * counts.sum()
    likely = expected > 5
    chi = ((counts[ids][likely] - expected[likely]) ** 2 / expected[likely]).sum()
    assert chi < likely.sum() + 4 * np.sqrt(2 * likely.sum()) + 11  # chi-squared, far less than one in a thousand


def test_draws_follow_the_distribution(small):
    memory = memory_of("cuda")
    random = np.random.default_rng(0)
    logits = random.standard_normal((64, 16, 2)).astype(np.float32)
    logits[:] = logits[:1]
    counts = np.zeros(32)
    arrays = [memory.holding(logits), memory.holding(np.full(64, 0.7, np.float32))]
    scores, parts = memory.empty((64, 16), np.float32), memory.empty((64, 16), np.int32)
    chosen, peaks = memory.empty((64,), np.int32), memory.empty((64,), np.float32)
    lengths = memory.zeros((64,), np.int32)
    for place in range(64):
        seeds, places = memory.holding(np.arange(64, dtype=np.int32)), memory.holding(np.full(64, place, np.int32))
        first = tw.ops.sample_parts.bind(*arrays, seeds, places, out=(scores, parts))
        second = tw.ops.sample_join.bind(scores, parts, out=(chosen, peaks, places, lengths))
        memory.run([first, second])
        counts += np.bincount(memory.read(chosen), minlength=32)
    assert memory.read(lengths).tolist() == [64] * 64
    weights = np.exp(logits[0].reshape(-1).astype(np.float64) / 0.7)
    expected = weights / weights.sum() * counts.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 61.1  # chi-squared, 31 degrees of freedom, one in a thousand


def test_devices_that_are_not_there():
    with pytest.raises(MachineError, match="there is no GPU 99"):
        memory_of("cuda:99")
    with pytest.raises(ArgumentError, match="device is 'tpu'; choose cpu, cuda, or cuda:N"):
        memory_of("tpu")


def test_operands_on_the_host_and_on_the_gpu(small):
    x = memory_of("cuda").zeros((4, 64), np.float32)
    with pytest.raises(ArgumentError, match="move one of them"):
        tw.ops.linear(x, np.zeros((8, 64), np.float32), out=x[:, :8])


def test_integers_that_name_nothing_lead_nowhere():
    """Nobody looks at them on a GPU: they name the nearest place that exists, and no memory but the operands'."""
    table = torch.randn(10, 64, device="cuda")
    rows = tw.ops.embedding(torch.tensor([1, 10**6, -5], device="cuda"), table)
    assert torch.equal(rows, table[[1, 9, 0]])
    q, k, v = (torch.randn(1, 2, heads, 64, device="cuda") for heads in (4, 2, 2))
    cos, sin = torch.randn(2, 16, 64, device="cuda")
    caches = []
    for positions in ([[0, 7]], [[-9, 10**6]]):
        cache = torch.zeros(2, 1, 2, 8, 64, device="cuda")
        turned = tw.ops.rope_cache(q, k, v, cos, sin, torch.tensor(positions, device="cuda"), *cache)
        caches.append((turned, cache))
    assert all(torch.equal(a, b) for a, b in zip(*caches, strict=True))
    with pytest.raises(ArgumentError, match="cannot name any of the rows of table"):
        tw.ops.embedding(torch.tensor([0], device="cuda"), table[:0])


def test_too_little_memory():
    with pytest.raises(OutOfDeviceMemory, match="MiB left"):
        memory_of("cuda").empty((1 << 44,), np.float32)


def test_the_kernels_that_ran_are_told(small):
    from tilewright.cli_generate import _kernels_counted

    layers = json.loads((small / "config.json").read_text())["num_hidden_layers"]
    with _kernels_counted(None, "cuda") as kernels:
        tokens(tw.LLM(small, device="cuda", max_batch=1), [PROMPT], max_tokens=5)
    assert kernels["embedding"] == 5  # the prompt, and a step for each token after the first
    assert kernels["gate_up"] == kernels["rope_cache"] == kernels["attention"] == 5 * layers
    assert kernels["matmul"] == 5 * (3 * layers + 1) and kernels["sample_join"] == 5


def test_a_trace_has_every_replay(small):
    recorder = TraceRecorder()
    llm = tw.LLM(small, device="cuda", max_batch=1)
    tokens(llm, [PROMPT], max_tokens=9)  # captures
    with recorder.recording():
        tokens(llm, [PROMPT], max_tokens=9)
    steps = [c for c in recorder.trace().calls if c.operator == "embedding" and dict(c.sizes)["N"] == 1]
    assert [(c.device, c.count) for c in steps] == [("cuda", 8)]


def test_what_each_kernel_takes_is_told(small, monkeypatch, capsys):
    wanted = tokens(tw.LLM(small, device="cuda", max_batch=1), [PROMPT], max_tokens=4)
    monkeypatch.setenv("DEBUG", "2")
    assert tokens(tw.LLM(small, device="cuda", max_batch=1), [PROMPT], max_tokens=4) == wanted
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("attention bf16 ")]
    layers = json.loads((small / "config.json").read_text())["num_hidden_layers"]
    assert len(lines) >= 4 * layers
    assert all(" us " in line and line.endswith("GB/s at most") for line in lines)  # lengths end its loops
