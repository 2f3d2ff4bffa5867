"""Random items for each user, the only ones that the held-out items are ranked against where a published table did so. Pure."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recstore.evaluation import splits
from recstore.evaluation.splits import Split


def sampled_negatives(split: Split, users: NDArray[np.intp], number: int, seed: int) -> sparse.csr_matrix:
    """`number` random items for each of `users` that have a training pair and are neither trained on nor held out for the
    user (all there are, where these are fewer); (users, items), drawn from the seed."""
    random = np.random.default_rng(seed)
    train, test = splits.count_matrix(split.train), splits.count_matrix(split.test)
    known = np.flatnonzero(np.bincount(train.indices, minlength=train.shape[1]))
    rows = []
    for user in users:
        own = np.concatenate([part.indices[part.indptr[user] : part.indptr[user + 1]] for part in (train, test)])
        wanted = number + len(own)
        if 4 * wanted < len(known):  # then few draws meet each other or the user's own
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
