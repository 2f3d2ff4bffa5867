"""Train without publishing: `evaluate` a recommender, `benchmark` a published split, tune; all measure by `measure`."""
