"""Text to binary: the LLVM JIT, and the content-addressed cache of every stage."""
