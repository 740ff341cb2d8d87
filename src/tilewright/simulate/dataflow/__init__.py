"""The dataflow machine: loops become pipelines of stages that work on different tiles at the same time."""
