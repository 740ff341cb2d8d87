"""The lowering of NVIDIA GPUs: tile, split, place, pipeline, annotate."""
