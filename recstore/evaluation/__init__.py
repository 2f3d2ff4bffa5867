"""Measure models on interactions that they have not seen: splits, scorers, metrics, curves. Knows no database."""
