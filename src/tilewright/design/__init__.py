"""How an operator runs: designs, their legality, and the default design for every operator and shape."""
