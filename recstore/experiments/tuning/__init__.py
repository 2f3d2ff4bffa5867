"""Search for good hyperparameters.

    space, sampling -> stages: the next trial -> search: in memory
                                              -> studies, work: in Postgres, shared and resumed

All but `studies` and `work` know interactions, trainers and metrics, and no database.
"""
