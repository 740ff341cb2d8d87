"""Text to token ids and back: `tokenizer.json` through the `tokenizers` library, and text in the order of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from tilewright.errors import ArgumentError, ModelError
from tilewright.models.chat import ChatTemplate, Message
from tilewright.models.config import read_json

_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class Tokenizer:
    """A model's tokenizer, its special tokens and its chat template."""

    def __init__(self, core: tokenizers.Tokenizer, settings: Mapping[str, Any], chat: ChatTemplate | None) -> None:
        self._core = core
        self._settings = settings
        self.chat_template = chat
        self.special = {key: text for key in _SPECIAL if (text := _token_text(settings.get(key))) is not None}
        self.bos_id = self._special_id("bos_token")
        self.eos_id = self._special_id("eos_token")

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """The tokenizer of a Hugging Face folder; ModelError if `tokenizer.json` is missing or damaged."""
        root = Path(folder)
        path = root / "tokenizer.json"
        if not path.is_file():
            raise ModelError(
                f"{path}: no such file; Tilewright needs the fast tokenizer's file, which save_pretrained of "
                "transformers' AutoTokenizer writes"
            )
        try:
            core = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception for whatever is wrong in the file
            raise ModelError(f"{path}: not a tokenizer ({error}); fetch the file again") from None
        core.no_padding()
        core.no_truncation()
        settings: dict[str, Any] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            if (root / name).is_file():
                settings.update(read_json(root / name))
        return cls(core, settings, ChatTemplate.from_folder(root, settings))

    @property
    def vocab(self) -> int:
        """How many ids there are, added tokens included."""
        return int(self._core.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`; with the begin token where the model's files ask for one.

        ArgumentError for text that holds half of a character: bytes that were read as UTF-8 and were not.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ArgumentError(
                f"the text is not UTF-8 at character {error.start}; convert it, with iconv for instance"
            ) from None
        ids: list[int] = self._core.encode(text, add_special_tokens=add_special_tokens).ids
        wants_bos = add_special_tokens and self._settings.get("add_bos_token") is True and self.bos_id is not None
        if wants_bos and self.bos_id is not None and ids[:1] != [self.bos_id]:
            return [self.bos_id, *ids]
        return ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD, ids that no token has become nothing."""
        return str(self._core.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def render_chat(self, messages: Sequence[Message], add_generation_prompt: bool = True, **variables: Any) -> str:
        """The prompt text of a conversation; ModelError if the model has no chat template or it refuses."""
        if self.chat_template is None:
            raise ModelError(
                "this model has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json); "
                "use generate with a plain prompt, or a chat-tuned model"
            )
        return self.chat_template.render(
            messages, **{**self.special, **variables, "add_generation_prompt": add_generation_prompt}
        )

    def encode_chat(self, messages: Sequence[Message], **variables: Any) -> list[int]:
        """Token ids of a conversation; the template has written the special tokens already."""
        return self.encode(self.render_chat(messages, **variables), add_special_tokens=False)

    def _special_id(self, name: str) -> int | None:
        text = self.special.get(name)
        return None if text is None else self._core.token_to_id(text)


def _token_text(entry: Any) -> str | None:
    """A special token as the files write it: a string, or an object with `content`."""
    if isinstance(entry, Mapping):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None


class Detokenizer:
    """Text as tokens arrive, one `push` each; the pieces joined are the text after the prompt.

    A token's text depends on its neighbours (a leading space, a character of several bytes), so each step decodes a
    short window twice, without and with the new token, and gives the difference. While the window ends in U+FFFD a
    character may be unfinished: the piece waits, at most `_PATIENCE` tokens.
    """

    _CONTEXT = 6
    _PATIENCE = 16

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._window = list(prompt_ids[-self._CONTEXT :])
        self._settled = len(self._window)  # tokens of the window whose text was given out

    def push(self, token: int) -> str:
        """The text that `token` settles, often "" while a character is unfinished."""
        self._window.append(token)
        return self._give(final=len(self._window) - self._settled > self._PATIENCE)

    def flush(self) -> str:
        """What is left when no token follows; an unfinished character becomes U+FFFD."""
        return self._give(final=True) if len(self._window) > self._settled else ""

    def _give(self, final: bool) -> str:
        before = self._tokenizer.decode(self._window[: self._settled])
        after = self._tokenizer.decode(self._window)
        if not final and (after.endswith("\ufffd") or len(after) <= len(before)):
            return ""
        self._window = self._window[self._settled :]
        self._settled = len(self._window)
        return after[len(before) :]
