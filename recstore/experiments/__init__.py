"""How good a model is, from interactions to a table: `evaluate` for a recommender, `benchmark` for a published split; both by
`measure`, through NumPy and, in a scratch recommender, through SQL."""
