"""Designs for systolic arrays: which operand stands still, how its tiles fold, how many lie ready."""
