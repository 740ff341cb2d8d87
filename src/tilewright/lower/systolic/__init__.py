"""The lowering of systolic arrays."""
