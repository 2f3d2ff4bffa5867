"""Definitions of the metrics, each with its source. Pure arithmetic on arrays; `metrics` supplies users and lists.

Held-out items are relevant, with a gain of 1. A metric has one value per user, float64 (users,), and its value for a model is
the mean over the users with a held-out item. Only coverage belongs to all lists together. k is the requested length, even if
fewer items are left to list.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recstore.model.arrays import Mask, Positions

PerUser = NDArray[np.float64]

OF_LISTS = ("precision", "recall", "ndcg", "map", "hit_rate", "mean_popularity")
"""Metrics of a list, with one value per user."""


def of_lists(hits: Mask, held_out: NDArray[np.int64], ks: Sequence[int]) -> dict[str, PerUser]:
    """Return the metrics of lists, by name and k. `hits` (users, places) marks listed items that were held out for the user;
    `held_out` (users,) is their number, at least 1, including items that could not be listed. For each k:

    - precision@k = hits / k, and recall@k = hits / held-out items (Herlocker et al., "Evaluating Collaborative Filtering
      Recommender Systems", TOIS 2004; like the tables of LightGCN, recall does not divide by min(k, held-out))
    - ndcg@k = DCG / ideal DCG, DCG = sum over the places p of hits of 1 / log2(p + 1), the ideal one with hits at places
      1 to min(k, held-out) (Jarvelin and Kekalainen, "Cumulated Gain-Based Evaluation", TOIS 2002)
    - map@k = sum over the places p of hits of precision@p / min(k, held-out) (average precision as in Manning, Raghavan
      and Schutze, "Introduction to Information Retrieval", 2008, section 8.4; a perfect list has 1)
    - hit_rate@k = 1 with a hit, else 0 (Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms", TOIS 2004)
    """
    place = np.arange(1, hits.shape[1] + 1)
    gain = hits / np.log2(place + 1)
    precision = np.cumsum(hits, axis=1) / place * hits
    ideal = np.cumsum(1 / np.log2(np.arange(1, max(ks) + 1) + 1))
    metrics = {}
    for k in ks:
        found = np.count_nonzero(hits[:, :k], axis=1)
        findable = np.minimum(k, held_out)
        metrics[f"precision@{k}"] = found / k
        metrics[f"recall@{k}"] = found / held_out
        metrics[f"ndcg@{k}"] = gain[:, :k].sum(axis=1) / ideal[findable - 1]
        metrics[f"map@{k}"] = precision[:, :k].sum(axis=1) / findable
        metrics[f"hit_rate@{k}"] = (found > 0).astype(np.float64)
    return metrics


def mean_popularity(lists: Positions, popularity: NDArray[np.int64], k: int) -> PerUser:
    """Return mean_popularity@k: the mean number of users in training over the items of a list (Abdollahpouri et al., "Managing
    Popularity Bias in Recommender Systems with Personalized Re-Ranking", FLAIRS 2019), NaN for an empty list.

    `lists` (users, places) holds item indices, -1 for none."""
    listed = lists[:, :k] >= 0
    total = np.where(listed, popularity[lists[:, :k]], 0).sum(axis=1)
    count = np.count_nonzero(listed, axis=1)
    return np.asarray(np.divide(total, count, out=np.full(len(lists), np.nan), where=count > 0))


def coverage(listed: Mask) -> float:
    """Return coverage@k: the share of all items that occur in a list (catalogue coverage: Ge, Delgado-Battenfeld and Jannach,
    "Beyond Accuracy", RecSys 2010). `listed` is (items,)."""
    return float(np.count_nonzero(listed) / len(listed))


def auc(not_below: PerUser, held_out: NDArray[np.int64], others: NDArray[np.int64]) -> PerUser:
    """Return the share of a user's (held-out item, other item) pairs in which the held-out item has the higher score; ties
    count half. This is the area under the ROC curve (Rendle et al., "BPR", UAI 2009, section 3.2; ties as Mann and Whitney).

    `others` counts the user's items that are neither held out nor excluded; without any the result is NaN. `not_below` is
    the number of pairs with the other item above, plus the number with it above or equal.
    """
    pairs = 2.0 * held_out * others
    return np.asarray(1 - np.divide(not_below, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))


def mse(squares: PerUser, on_known: PerUser, known: NDArray[np.int64], items: int) -> PerUser:
    """Return the mean over all items of (p_ui - s_ui)^2, with s the score and p the preference: 1 for the user's training and
    held-out items, else 0 (the p of Hu, Koren and Volinsky, ICDM 2008; unweighted, training items included).

    sum over i of (p - s)^2 = sum of s^2 over all items - 2 sum of s over the known items + their number. `squares` is the
    first term, for factors x_u^T (Y^T Y) x_u by the Gram matrix (the paper's section 4; Krichene et al., "Efficient Training
    on Very Large Corpora via Gramian Estimation", ICLR 2019). `on_known` is the sum of s over the `known` items.
    """
    return (squares - 2 * on_known + known) / items
