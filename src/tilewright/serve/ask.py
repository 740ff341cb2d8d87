"""What a client asks for: the body of a request, checked field by field, and its prompts as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tilewright.errors import ContextError, ModelError, SamplingError, TilewrightError
from tilewright.serve.fields import CHAT, COMPLETION, SAMPLING, Body, check_names, flag, include_usage, whole
from tilewright.serve.messages import checked_messages
from tilewright.serve.problem import Problem

if TYPE_CHECKING:
    from tilewright.engine.llm import LLM, Prompt
    from tilewright.engine.sampling import SamplingParams
    from tilewright.models.chat import Message

MOST_CHOICES = 128
MOST_STOPS, LONGEST_STOP, MOST_STOP_TOKENS = (
    16,
    256,
    1024,
)  # every new token is compared with them, in the thread that serves everybody


@dataclass(frozen=True)
class Ask:
    """One request: `n` completions of each of `prompts`, or of the conversation `messages`."""

    params: SamplingParams
    n: int
    stream: bool
    include_usage: bool
    prompts: Sequence[Prompt] = ()
    messages: Sequence[Message] = ()
    variables: Body | None = None
    echo: bool = False
    most: int | None = None
    """New tokens that were asked for by number, so that there must be room for them."""

    @property
    def choices(self) -> int:
        """How many completions that makes."""
        return self.n * max(1, len(self.prompts))

    def params_of(self, choice: int) -> SamplingParams:
        """How completion number `choice` of a prompt is drawn: each by a seed of its own, the first by the given."""
        seed = self.params.seed
        return self.params if seed is None else replace(self.params, seed=seed + choice)


def completion_ask(body: Body, defaults: SamplingParams) -> Ask:
    """A body of /v1/completions; Problem for one that cannot be obeyed."""
    check_names(body, COMPLETION)
    n = whole(body, "n", 1, 1, MOST_CHOICES)
    if whole(body, "best_of", n, 1, MOST_CHOICES) != n:
        raise Problem("best_of is not supported by this server; leave it out, or set it to n", param="best_of")
    echo, told = flag(body, "echo"), body.get("logprobs")
    if echo and told is not None:
        raise Problem("echo with logprobs is not supported by this server; leave one out", param="echo")
    most, stream, usage = body.get("max_tokens"), flag(body, "stream"), include_usage(body)
    params = _params(body, defaults, max_tokens=defaults.max_tokens if most is None else most, logprobs=told)
    return Ask(params, n, stream, usage, prompts=_prompts(body), echo=echo, most=most)


def chat_ask(body: Body, defaults: SamplingParams) -> Ask:
    """A body of /v1/chat/completions; Problem for one that cannot be obeyed."""
    check_names(body, CHAT)
    most = body.get("max_completion_tokens")
    most = body.get("max_tokens") if most is None else most
    params = _params(body, defaults, max_tokens=most, logprobs=_chat_logprobs(body))
    variables = body.get("chat_template_kwargs")
    if variables is not None and not isinstance(variables, dict):
        raise Problem("chat_template_kwargs must be an object", param="chat_template_kwargs")
    n, stream, usage = whole(body, "n", 1, 1, MOST_CHOICES), flag(body, "stream"), include_usage(body)
    messages = checked_messages(body.get("messages"))
    return Ask(params, n, stream, usage, messages=messages, variables=variables, most=most)


def tokens_of(ask: Ask, llm: LLM) -> list[list[int]]:
    """The prompts as token ids. Problem where one is none, does not fit, or leaves too little room."""
    try:
        if ask.messages:
            found = [conversation_tokens(llm, ask.messages, ask.variables or {})]
        else:
            found = [prompt_tokens(llm, prompt) for prompt in ask.prompts]
        for ids in found:
            llm.engine.check(ids)
            _check_room(len(ids), ask.most, llm.context)
    except TilewrightError as error:
        raise Problem.of(error, "messages" if ask.messages else "prompt") from None
    return found


def prompt_tokens(llm: LLM, prompt: Prompt) -> list[int]:
    """A prompt as token ids; ContextError for an empty one."""
    if not isinstance(prompt, str):
        return list(prompt)
    if not prompt:
        raise ContextError("the prompt is empty; give at least one character")
    return llm.tokenizer.encode(prompt)


def conversation_tokens(llm: LLM, messages: Sequence[Message], variables: Body) -> list[int]:
    """A conversation as token ids; Problem where the model has no chat template, or where that refuses."""
    template = llm.tokenizer.chat_template
    if template is None:
        raise Problem("this model has no chat template; use /v1/completions, or serve a chat-tuned model")
    try:
        return llm.tokenizer.encode_chat(messages, **variables)
    except TypeError:  # a variable that has the name of something that the server gives
        raise Problem("chat_template_kwargs sets what the server sets; leave it out") from None
    except ModelError as error:
        # Clients are not told in which file the server keeps its template.
        raise Problem(str(error).removeprefix(f"{template.where}: "), param="messages") from None


def _check_room(prompt: int, new: int | None, context: int) -> None:
    if new is not None and prompt + new > context:
        raise ContextError(
            f"the prompt has {prompt} tokens and max_tokens is {new}, together more than the context of {context}; "
            f"ask for at most {context - prompt} new tokens, or shorten the prompt"
        )


def _params(body: Body, defaults: SamplingParams, **more: Any) -> SamplingParams:
    """The model's own parameters, changed where the body says so."""
    given = {name: body[name] for name in SAMPLING if body.get(name) is not None}
    try:
        params = replace(defaults, **given, **more)
    except SamplingError as error:
        raise Problem.of(error, str(error).partition(" ")[0]) from None
    if len(params.stops) > MOST_STOPS or any(len(stop) > LONGEST_STOP for stop in params.stops):
        raise Problem(f"stop takes at most {MOST_STOPS} strings of {LONGEST_STOP} characters", param="stop")
    if len(params.stop_token_ids or ()) > MOST_STOP_TOKENS:
        raise Problem(f"stop_token_ids takes at most {MOST_STOP_TOKENS} ids", param="stop_token_ids")
    return params


def _chat_logprobs(body: Body) -> int | None:
    """How many likeliest tokens to tell beside each chosen one; None for no log probabilities."""
    top = body.get("top_logprobs")
    if flag(body, "logprobs"):
        return 0 if top is None else whole(body, "top_logprobs", 0, 0, 20)
    if top is not None:
        raise Problem("top_logprobs needs logprobs; set logprobs to true, or leave both out", param="top_logprobs")
    return None


def _prompts(body: Body) -> list[Prompt]:
    """The prompts of a completion: one string, one list of token ids, or a list of either."""
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if all(isinstance(i, int) for i in prompt):
            return [prompt]
        if all(isinstance(p, str) for p in prompt) or all(isinstance(p, list) for p in prompt):
            return prompt
    raise Problem(
        'prompt is missing, or none; give a string, a list of token ids, or a list of either, as in "def f(x):"',
        param="prompt",
    )


__all__ = ["Ask", "chat_ask", "completion_ask", "conversation_tokens", "prompt_tokens", "tokens_of"]
