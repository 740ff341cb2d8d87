"""The fields of a request's body: which there are, which are left alone, and which are refused, with what to do."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from tilewright.serve.problem import Problem

Body = Mapping[str, Any]

SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "stop_token_ids",
    "ignore_eos",
)
"""Fields that are the engine's own parameters of the same name."""
BOTH = frozenset({*SAMPLING, "model", "n", "stream", "stream_options", "max_tokens", "logprobs"})
COMPLETION = BOTH | {"prompt", "echo", "best_of"}
CHAT = BOTH | {"messages", "max_completion_tokens", "top_logprobs", "chat_template_kwargs"}
WITHOUT_EFFECT = frozenset(
    {"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"}
)
"""Fields for bookkeeping by others: clients send them, and no answer depends on them."""
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "suffix": ("",),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}
"""Fields of the protocol that change the answer in ways that are not built, and values that ask for nothing."""


def check_names(body: Body, known: frozenset[str]) -> None:
    """Problem for a field that is unknown, or that asks for what is not built: no request is half obeyed."""
    for field, value in body.items():
        name = field[:60]  # what is longer is none, and takes long to compare
        if name in known or name in WITHOUT_EFFECT or (name in UNSUPPORTED and value is None):
            continue
        if name in UNSUPPORTED:
            if value not in UNSUPPORTED[name]:
                raise Problem(f"{name} is not supported by this server; leave it out", param=name, code="unsupported")
            continue
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the fields are {', '.join(sorted(known))}"
        raise Problem(f"{name!r} is no field of this request; {hint}", param=name, code="unknown_field")


def flag(body: Body, name: str) -> bool:
    """A field that is true or false; false if it is not there."""
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise Problem(f"{name} is {value!r:.60}; it must be true or false", param=name)
    return value


def whole(body: Body, name: str, default: int, low: int, high: int) -> int:
    """A field that is a whole number in [low, high]."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Problem(f"{name} is {value!r:.60}; it must be an integer in [{low}, {high}]", param=name)
    return value


def include_usage(body: Body) -> bool:
    """Whether a stream is to end with the counts of tokens."""
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise Problem(
            f'stream_options is {options!r:.60}; it must be an object, as in {{"include_usage": true}}',
            param="stream_options",
        )
    if not flag(body, "stream"):
        raise Problem("stream_options are for streams; set stream to true, or leave them out", param="stream_options")
    check_names(options, frozenset({"include_usage", "include_obfuscation"}))
    return flag(options, "include_usage")


__all__ = ["CHAT", "COMPLETION", "SAMPLING", "Body", "check_names", "flag", "include_usage", "whole"]
