"""Systolic arrays: scheduled products executed cycle by cycle, and the same cycles in closed form."""
