"""What a search found, for people: curves, the design graph, and the ladder from the naive kernel to the best."""
