"""Launch, measure and verify kernels; the worker pool they run on."""
