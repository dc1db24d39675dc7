"""Benchmarks: each prints one JSON object with figures, spread, goals and whether they hold."""
