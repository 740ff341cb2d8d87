"""Kernels on NVIDIA GPUs: loaded through the driver, launched on torch's streams, measured with events."""
