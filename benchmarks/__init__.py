"""Benchmarks: ``python -m benchmarks NAME``.  Answers are checked before anything is timed; only ratios of one run count."""
