"""Many chips: collectives step by step, and what decoding costs under each way to share a model."""
