"""Time and cost of the papers' searches on one GPU to 64: see `benchmarks.scaling.__main__` and docs/scaling.md."""
