"""Scheduled tile programs executed, with values and cycles, on machines that nobody here owns."""
