"""The scheduled program executed, with values and cycles, on machines that you do not own."""
