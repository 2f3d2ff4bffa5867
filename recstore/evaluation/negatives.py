"""Sample random items per user to rank held-out items against, as some published tables do. Pure."""

import numpy as np
from scipy import sparse

from recstore.evaluation.splits import Split
from recstore.model.arrays import Positions


def sampled_negatives(split: Split, users: Positions, number: int, seed: int) -> sparse.csr_matrix:
    """Return a matrix (users, items) with `number` random items for each of `users`, drawn from the seed.

    The items have a training pair, and are neither in training nor held out for the user. Users with fewer such items get
    all of them."""
    random = np.random.default_rng(seed)
    train, test = split.train.matrix(), split.test.matrix()
    known = np.flatnonzero(np.bincount(train.indices, minlength=train.shape[1]))
    rows = []
    for user in users:
        own = np.concatenate([part.indices[part.indptr[user] : part.indptr[user + 1]] for part in (train, test)])
        wanted = number + len(own)
        if 4 * wanted < len(known):  # few draws coincide with each other or the user's own
            draws = known[random.integers(len(known), size=2 * wanted)]
            _, first = np.unique(draws, return_index=True)
            others = draws[np.sort(first)]
            others = others[~np.isin(others, own)]
        else:
            others = np.empty(0, dtype=np.intp)
        if len(others) < number:
            others = random.permutation(np.setdiff1d(known, own))
        rows.append(others[:number])
    owners = np.repeat(users, [len(row) for row in rows])
    columns = np.concatenate(rows) if rows else np.empty(0, dtype=np.intp)
    return sparse.csr_matrix((np.ones(len(columns), dtype=np.float32), (owners, columns)), shape=train.shape)
