"""Designs for dataflow machines: tiles, copies, where stages end, how deep buffers are, units of each stage."""
