"""Decoder-only models: configuration, weights, tokenizer, KV cache and the forward pass."""
