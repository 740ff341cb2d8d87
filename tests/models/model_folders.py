"""Tiny model folders for tests: random weights saved by transformers, and tokenizers built on the spot."""

from __future__ import annotations

from pathlib import Path

_COMMON = {"vocab_size": 256, "hidden_size": 128, "intermediate_size": 176, "num_hidden_layers": 2}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

# name -> (family, options): between them every branch of the decoder, GQA ratios 1, 4, 8 and head sizes 64, 80, 128.
MODELS = {
    "llama": ("Llama", {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64}),
    "llama-gqa8-tied": (
        "Llama",
        {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 64, "tie_word_embeddings": True},
    ),
    "llama-rope3": (
        "Llama",
        {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 80, "rope_parameters": _LLAMA3},
    ),
    "llama-linear-biases": (
        "Llama",
        {
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "attention_bias": True,
            "mlp_bias": True,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0},
        },
    ),
    "mistral-window": (
        "Mistral",
        {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 128, "sliding_window": 12},
    ),
    "mistral": ("Mistral", {"num_attention_heads": 4, "num_key_value_heads": 1, "sliding_window": None}),
    "qwen2": ("Qwen2", {"num_attention_heads": 4, "num_key_value_heads": 1, "tie_word_embeddings": True}),
    "qwen2-window": (
        "Qwen2",
        {
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "use_sliding_window": True,
            "sliding_window": 9,
            "max_window_layers": 1,
        },
    ),
    "qwen3": ("Qwen3", {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 80}),
    "qwen3-bias": (
        "Qwen3",
        {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 128, "attention_bias": True},
    ),
}


def make_model(name: str, folder: Path, dtype: str = "float32", **more):
    """Save the model called `name`, weights random but the same each time; gives transformers' model."""
    import torch
    import transformers

    family, options = MODELS[name]
    settings = {"max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2, **_COMMON, **options, **more}
    config = getattr(transformers, f"{family}Config")(**settings)
    torch.manual_seed(7)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if key.endswith("bias"):  # transformers starts these at zero, where they would show nothing
                weight.normal_(0, 0.2, generator=generator)
            elif "norm" in key:
                weight.normal_(1, 0.2, generator=generator)
            else:
                weight.normal_(0, 0.08, generator=generator)
    model = model.to(getattr(torch, dtype))
    model.save_pretrained(folder)
    return model


def make_tokenizer(folder: Path, *, letters: bool = False, chat_template: str | None = None, **settings):
    """Save a tokenizer into `folder`; gives transformers' reading of it.

    Its 256 tokens are bytes, as in GPT-2; or, with `letters`, whole characters (ASCII and Latin Extended), so that
    even nonsense has a text. `<s>` and `</s>` follow as 256 and 257.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if letters:
        alphabet = [chr(c) for c in (*range(0x20, 0x7F), *range(0x100, 0x100 + 161))]
    core = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    if letters:
        core.decoder = decoders.Fuse()
    else:
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", **settings)
    if chat_template is not None:
        fast.chat_template = chat_template
    fast.save_pretrained(folder)
    return fast
