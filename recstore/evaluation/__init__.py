"""How good a model is on interactions it has not seen: splits, scorers, metrics, curves. Knows no database."""
