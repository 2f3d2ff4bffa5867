"""The search for good hyperparameters.

`space`, `sampling`, `stages`, `pruning`, `trial` and `search` are pure: they know interactions, trainers and metrics, no
database. `studies` and `work` store a search in Postgres, so that it survives a kill and several workers share it.
"""
