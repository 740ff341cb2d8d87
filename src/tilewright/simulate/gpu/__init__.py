"""GPUs by model: whole steps of decoder-only models, operator by operator, by the cost model; nothing is run."""
