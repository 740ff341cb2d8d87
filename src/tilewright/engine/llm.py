"""`LLM`: a model folder as one object that generates, streams, chats and scores."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilewright.engine.engine import Engine, check_prompt
from tilewright.engine.phases import Phases
from tilewright.engine.request import Completion, Request
from tilewright.engine.sampling import SamplingParams
from tilewright.errors import ArgumentError, ContextError, ModelError, SamplingError
from tilewright.knobs import MODES
from tilewright.models.chat import Message
from tilewright.models.config import read_json
from tilewright.models.decoder import Decoder
from tilewright.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tilewright.runtime.learner import Learner

Prompt = str | Sequence[int]
Prompts = Prompt | Sequence[str] | Sequence[Sequence[int]]
Params = SamplingParams | Sequence[SamplingParams] | None
SHIPPED = Path(__file__).resolve().parents[1] / "models" / "shipped"


class LLM:
    """A decoder-only model ready to generate.

    model: a Hugging Face folder (config.json, safetensors, tokenizer.json), the name of a model that ships with
        Tilewright, or None for the one that ships.
    dtype: "auto" (as stored), "bf16", "f16" or "f32": what weights, activations and the KV cache are kept in.
    max_batch: how many requests run at once; more wait.
    max_context: most tokens of a prompt and its completion together; the model's own context if None.
    device: "cpu", "cuda", or "cuda:N" for GPU number N: where weights and KV cache lie and every kernel runs.
    mode: "learn" has better kernels designed beside the program, for shapes that it meets often, and swaps them in;
        "frozen" uses what was learned and compiles, searches and writes nothing; "generic" uses generic kernels only.
        It is the TILEWRIGHT_MODE of the process from now on. None leaves that alone, and starts nothing that learns.

    kv_cache: "auto" keeps keys and values in the model's dtype, "fp8" in 8 bits (e4m3) with a scale for each head:
        half the memory and half the bytes to read, and an error that `docs/notes/0016-decode.md` reports.

    Raises ModelError (UnsupportedModel, WeightsError) for a folder that cannot be used, ContextError for a
    `max_context` beyond the model's, DTypeError for a dtype that models do not run in, MachineError where there is no
    such GPU, OutOfDeviceMemory where it is too small.
    """

    def __repr__(self) -> str:
        """On one line: the folder, and how long its texts may be."""
        return f"<LLM {self.folder.name}, context {self.context}>"

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        dtype: str = "auto",
        max_batch: int = 8,
        max_context: int | None = None,
        device: str = "cpu",
        mode: str | None = None,
        kv_cache: str = "auto",
        operators: Any = None,
    ) -> None:
        begun = time.perf_counter()
        if type(max_batch) is not int or max_batch < 1:
            raise ArgumentError(f"max_batch is {max_batch!r}; it must be an integer of at least 1")
        learner = _learner(mode)
        self.folder = find_model(model)
        self.decoder = Decoder.from_folder(self.folder, dtype, operators, device, kv_cache)
        self.config = self.decoder.config
        self.context = _context(max_context, self.config.context)
        has_tokenizer = (self.folder / "tokenizer.json").is_file()
        self._tokenizer = Tokenizer.from_folder(self.folder) if has_tokenizer else None
        self.default_params = _default_params(self.folder)
        self.engine = Engine(self.decoder, self._tokenizer, max_batch, self.context)
        self.engine.learner = learner
        self._load_seconds = time.perf_counter() - begun

    def phases(self) -> Phases:
        """Seconds spent so far in loading, compiling, searching, capturing, and until the first token."""
        from tilewright.runtime import learner, modes

        at_work = learner.current()
        searched = 0.0 if at_work is None else at_work.status().seconds
        captured, first = self.decoder.capture_seconds, self.engine.first_token
        return Phases(self._load_seconds, modes.compile_seconds(), searched, captured, first)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer; ModelError if its folder has none (token lists still work as prompts)."""
        if self._tokenizer is None:
            raise ModelError(
                f"{self.folder / 'tokenizer.json'}: no such file; add it, or give prompts as lists of token ids"
            )
        return self._tokenizer

    def generate(self, prompts: Prompts, params: Params = None) -> list[Completion]:
        """Complete each of `prompts` (one string, one list of token ids, or a list of either), in their order.

        `params` is one for all, one for each, or None for the model's own defaults. All prompts are checked before
        any is run: ContextError for an empty one or one that does not fit, SamplingError for a parameter.
        """
        batch = [self._ids(prompt) for prompt in _as_batch(prompts)]
        requests: list[Request] = []
        try:
            for ids, one in zip(batch, self._params_for(batch, params), strict=True):
                requests.append(self.engine.add(ids, one))
            while not all(request.finished for request in requests):
                self.engine.step()
        finally:
            for request in requests:
                self.engine.abort(request)
        return [request.completion() for request in requests]

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Stream:
        """Complete one prompt; an iterator over pieces of its text as they are settled."""
        if not isinstance(params, SamplingParams | None):
            raise _no_params(params)
        return Stream(self.engine, self.engine.add(self._ids(prompt), params or self.default_params))

    def chat(self, messages: Sequence[Message], params: SamplingParams | None = None, **variables: Any) -> Completion:
        """The model's reply to a conversation of `{"role": ..., "content": ...}` messages.

        `variables` go to the chat template (`tools`, `enable_thinking`, ...). ModelError if the model has none.
        """
        return self.generate([self.tokenizer.encode_chat(messages, **variables)], params)[0]

    def stream_chat(
        self, messages: Sequence[Message], params: SamplingParams | None = None, **variables: Any
    ) -> Stream:
        """As `chat`, in pieces as they are settled."""
        return self.stream(self.tokenizer.encode_chat(messages, **variables), params)

    def logits(self, prompts: Sequence[Sequence[int]]) -> list[npt.NDArray[np.float32]]:
        """For each sequence of token ids, f32[tokens, vocab]: the logits after every token."""
        for ids in prompts:
            check_prompt(ids, self.config.vocab)
            if len(ids) > self.context:
                raise ContextError(f"a sequence of {len(ids)} tokens is longer than the context of {self.context}")
        return self.decoder.logits(prompts)

    def _ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            if not prompt:
                raise ContextError("the prompt is empty; give at least one character")
            return self.tokenizer.encode(prompt)
        return _listed(prompt)

    def _params_for(self, batch: Sequence[Any], params: Params) -> list[SamplingParams]:
        """One for each prompt."""
        if params is None or isinstance(params, SamplingParams):
            return [params or self.default_params] * len(batch)
        if not isinstance(params, Sequence) or not all(isinstance(p, SamplingParams) for p in params):
            raise _no_params(params)
        if len(params) != len(batch):
            raise SamplingError(
                f"{len(params)} sampling parameters for {len(batch)} prompts; give one, or one for each"
            )
        return list(params)


class Stream(Iterator[str]):
    """Pieces of a completion's text; `completion` is its state.

    `close`, the end of a `with` block, or dropping the stream stops the generation early.
    """

    def __init__(self, engine: Engine, request: Request) -> None:
        self._engine = engine
        self._request = request
        self._given = 0

    def __next__(self) -> str:
        while True:
            text = self._request.stream.text
            if len(text) > self._given:
                piece, self._given = text[self._given :], len(text)
                return piece
            if self._request.finished:
                raise StopIteration
            self._engine.step()

    @property
    def completion(self) -> Completion:
        """All of the completion so far; `finish_reason` is None while it runs."""
        return self._request.completion()

    def close(self) -> None:
        """Stop generating."""
        self._engine.abort(self._request)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def find_model(model: str | Path | None) -> Path:
    """The folder of a model: `model` itself, a shipped model of that name, or the shipped one."""
    if model is None:
        if (SHIPPED / "config.json").is_file():
            return SHIPPED
        raise ModelError(f"{SHIPPED}: the shipped model is missing from this installation; reinstall, or give a folder")
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError(f"{path}: is a file; give the folder that holds config.json and the weights")
    shipped = SHIPPED / path
    if len(path.parts) == 1 and (shipped / "config.json").is_file():
        return shipped
    raise ModelError(
        f"{path}: no such folder; give the folder of a Hugging Face model (download one with "
        "`hf download NAME --local-dir FOLDER`)"
    )


def _learner(mode: str | None) -> Learner | None:
    """Make `mode` that of the process; what learns in it from now on, if anything does."""
    if mode is None:
        return None
    if mode not in MODES:
        raise ArgumentError(f"mode={mode!r} is unknown; it is one of {', '.join(MODES)}")
    os.environ["TILEWRIGHT_MODE"] = mode
    from tilewright.runtime import form, learner

    form.forget()  # calls that were bound in another mode
    if mode == "learn":
        return learner.start()
    learner.stop()
    return None


def _context(wanted: int | None, limit: int) -> int:
    """`max_context`, or the model's own."""
    if wanted is None:
        return limit
    if type(wanted) is not int or not 1 <= wanted <= limit:
        raise ContextError(f"max_context is {wanted!r}; this model takes an integer from 1 to {limit}")
    return wanted


def _default_params(folder: Path) -> SamplingParams:
    """SamplingParams with what `generation_config.json` recommends."""
    path = folder / "generation_config.json"
    raw = read_json(path) if path.is_file() else {}
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    found: dict[str, Any] = {name: raw[name] for name in names if raw.get(name) is not None}
    if raw.get("max_new_tokens") is not None:
        found["max_tokens"] = raw["max_new_tokens"]
    try:
        return SamplingParams(**found)
    except SamplingError as error:
        raise ModelError(f"{path}: {error}") from None


def _no_params(params: object) -> SamplingError:
    return SamplingError(f"the sampling parameters are {params!r:.60}; give SamplingParams(max_tokens=64), for example")


def _listed(prompt: Any) -> list[Any]:
    """Token ids, or prompts, as a list; bytes would pass for token ids, and are none."""
    if isinstance(prompt, (bytes, bytearray, Mapping)) or not isinstance(prompt, Iterable):
        raise ArgumentError(f"the prompt is {prompt!r:.60}; give a string or a list of token ids")
    return list(prompt)


def _as_batch(prompts: Prompts) -> list[Prompt]:
    """The prompts as a list, one string or one list of ids being a list of one."""
    if isinstance(prompts, str):
        return [prompts]
    batch = _listed(prompts)
    if batch and isinstance(batch[0], (int, np.integer)):
        return [batch]
    return batch
