"""Designs for NVIDIA GPUs: what is legal, what is good at once, and what can be changed."""
