"""Benchmarks: each measures ours and what it is compared with in one run."""
