"""Tilewright: an LLM inference engine that designs its own kernels."""

__version__ = "0.1.0"
