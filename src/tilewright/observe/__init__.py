"""What a running program shows of itself: traces of shapes, phases, metrics, a live table, and why a kernel runs."""
