"""The metrics' definitions, each with its source. Pure arithmetic on arrays; `metrics` brings the users and the lists.

Relevant is what was held out, with a gain of 1. Every metric is of one user, (users,) float64, and its value for a model
is the mean over the users who have a held-out item; coverage alone is of all lists together. k is the length that was
asked for, also where fewer items are left to list.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PerUser = NDArray[np.float64]

OF_LISTS = ("precision", "recall", "ndcg", "map", "hit_rate", "mean_popularity")
"""The metrics at a k that are of one user."""


def of_lists(hits: NDArray[np.bool_], held_out: NDArray[np.int64], ks: Sequence[int]) -> dict[str, PerUser]:
    """Metrics of lists of recommended items. `hits` (users, places): whether the item at that place was held out for the
    user; `held_out` (users,): how many items were, at least 1, including those that could not be listed. For each k:

    - precision@k = hits / k, and recall@k = hits / held-out items (Herlocker et al., "Evaluating Collaborative Filtering
      Recommender Systems", TOIS 2004; the denominator of recall is not min(k, held-out), as LightGCN's tables have it)
    - ndcg@k = DCG / ideal DCG, DCG = sum over the hits' places p = 1.. of 1 / log2(p + 1), the ideal one having hits at
      the places 1 to min(k, held-out) (Jarvelin and Kekalainen, "Cumulated Gain-Based Evaluation", TOIS 2002)
    - map@k = sum over the hits' places p of precision@p, / min(k, held-out) (average precision as in Manning, Raghavan
      and Schutze, "Introduction to Information Retrieval", 2008, section 8.4; the bound makes a perfect list 1)
    - hit_rate@k = 1 with a hit, else 0 (Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms", TOIS 2004)
    """
    place = np.arange(1, hits.shape[1] + 1)
    gain = hits / np.log2(place + 1)
    precision = np.cumsum(hits, axis=1) / place * hits
    ideal = np.cumsum(1 / np.log2(np.arange(1, max(ks, default=0) + 1) + 1))
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


def mean_popularity(lists: NDArray[np.intp], popularity: NDArray[np.int64], k: int) -> PerUser:
    """mean_popularity@k: the mean, over the items of a user's list, of the number of users who have the item in training
    (Abdollahpouri et al., "Managing Popularity Bias in Recommender Systems with Personalized Re-Ranking", FLAIRS 2019).
    `lists` (users, places) holds item indices, -1 where there is none; NaN for an empty list."""
    listed = lists[:, :k] >= 0
    total = np.where(listed, popularity[lists[:, :k]], 0).sum(axis=1)
    count = np.count_nonzero(listed, axis=1)
    return np.asarray(np.divide(total, count, out=np.full(len(lists), np.nan), where=count > 0))


def coverage(listed: NDArray[np.bool_]) -> float:
    """coverage@k: the share of all items that are in at least one of the lists (catalogue coverage: Ge, Delgado-Battenfeld
    and Jannach, "Beyond Accuracy", RecSys 2010). `listed` (items,)."""
    return float(np.count_nonzero(listed) / len(listed))


def auc(not_below: PerUser, held_out: NDArray[np.int64], others: NDArray[np.int64]) -> PerUser:
    """The share of a user's (held-out item, other item) pairs in which the held-out item has the higher score, a tie
    counting half: the area under the ROC curve (Rendle et al., "BPR", UAI 2009, section 3.2; ties as Mann and Whitney).

    `others` are the user's items that are neither held out nor excluded; `not_below` is, over the pairs, how many have the
    other one above, plus how many have it above or equal. NaN without others.
    """
    pairs = 2.0 * held_out * others
    return np.asarray(1 - np.divide(not_below, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))


def mse(squares: PerUser, on_known: PerUser, known: NDArray[np.int64], items: int) -> PerUser:
    """The mean over all items of (p_ui - s_ui)^2, s being the score and the preference p_ui being 1 for the user's training
    and held-out items, else 0 (the p of Hu, Koren and Volinsky, ICDM 2008; unweighted, training items included).

    sum over i of (p - s)^2 = sum of s^2 over all items - 2 sum of s over the known ones + their number, so that only the
    first term runs over all items. `squares` is that term, for factors x_u^T (Y^T Y) x_u by the Gram matrix (the paper's
    section 4; Krichene et al., "Efficient Training on Very Large Corpora via Gramian Estimation", ICLR 2019); `on_known` is
    the sum of s over the `known` ones.
    """
    return (squares - 2 * on_known + known) / items
