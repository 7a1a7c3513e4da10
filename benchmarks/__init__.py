"""How fast minicnn is: `python -m benchmarks cpu` compares it with PyTorch, and with the matrix products alone."""
