"""The lowering of dataflow machines: loops become stages, values that cross them become buffers."""
