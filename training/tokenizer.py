"""A byte-level BPE tokenizer for Python source.

Before the merges, text is cut so that a run of line ends, a run of indentation, a word with the space before it,
one digit, and a run of punctuation are each a piece of their own: indentation costs one token, numbers are spelt
digit by digit, and no token spans two lines of code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

END_OF_TEXT = "<|endoftext|>"
PIECES = r"[\r\n]+| {2,}|\t+| ?[\p{L}_]+|\p{N}| ?[^\s\p{L}\p{N}_]+|\s"

# A turn of the user becomes a docstring at the head of a module, and the answer is the code that follows it.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% set text = message['content'] | trim %}"
    "{% if message['role'] == 'assistant' %}{{ text }}\n\n\n"
    """{% else %}{{ '"' * 3 }}{{ text | replace('"' * 3, '"') }}{{ '"' * 3 }}\n\n\n{% endif %}"""
    "{% endfor %}"
)


def train_tokenizer(texts: Iterable[str], vocab: int) -> Tokenizer:
    """Learn `vocab` tokens from `texts`; token 0 is end-of-text, and stands before every encoded text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=alphabet,
        show_progress=False,
        max_token_length=32,
    )
    tokenizer.train_from_iterator(texts, trainer)
    start = [(END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A", pair=f"{END_OF_TEXT} $A {END_OF_TEXT} $B", special_tokens=start
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` as transformers reads them."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "model_max_length": 1024,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
