"""Text to tokens and back over HTTP: what /tokenize and /detokenize answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tilewright.engine.engine import check_prompt
from tilewright.errors import TilewrightError
from tilewright.serve.ask import conversation_tokens
from tilewright.serve.fields import Body, check_names
from tilewright.serve.messages import checked_messages
from tilewright.serve.problem import Problem

if TYPE_CHECKING:
    from tilewright.engine.llm import LLM


def tokenize(body: Body, llm: LLM) -> dict[str, Any]:
    """The tokens of `prompt`, a string, or of the conversation `messages`, and how many there are."""
    check_names(body, frozenset({"model", "prompt", "messages", "add_special_tokens"}))
    special, prompt = body.get("add_special_tokens", True), body.get("prompt")
    if not isinstance(special, bool):
        raise Problem("add_special_tokens must be true or false", param="add_special_tokens")
    if body.get("messages") is not None:
        ids = conversation_tokens(llm, checked_messages(body["messages"]), {})
    elif isinstance(prompt, str):
        try:
            ids = llm.tokenizer.encode(prompt, special)
        except TilewrightError as error:
            raise Problem.of(error, "prompt") from None
    else:
        raise Problem('give prompt, a string, or messages, as in {"prompt": "def f(x):"}', param="prompt")
    return {"tokens": ids, "count": len(ids), "max_model_len": llm.context}


def detokenize(body: Body, llm: LLM) -> dict[str, Any]:
    """The text of `tokens`."""
    check_names(body, frozenset({"model", "tokens"}))
    ids = body.get("tokens")
    if not isinstance(ids, list):
        raise Problem('give tokens, a list of token ids, as in {"tokens": [1, 2, 3]}', param="tokens")
    try:
        check_prompt(ids or [0], llm.config.vocab)
    except TilewrightError as error:
        raise Problem.of(error, "tokens") from None
    return {"prompt": llm.tokenizer.decode(ids, skip_special_tokens=False)}


__all__ = ["detokenize", "tokenize"]
