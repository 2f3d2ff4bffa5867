"""The best k of each row of a block of scores, and how many pairs a row orders rightly: the two passes over all scores.

Pure NumPy on a dense block (rows x columns, float32), a column being an item in ascending index. Both are written so that
a block is read once or twice while it is in the cache, and give up Python's global lock meanwhile.
"""

import os

import numpy as np
from numpy.typing import NDArray

from recstore.errors import ScoresNotFinite

Scores = NDArray[np.float32]

LOWEST = np.finfo(np.float32).min
"""The smallest score that may be listed; -inf marks what may not."""

GROUPS = 1024
"""Columns are looked at in at least this many groups (or 16 for each place of the list): a longer inner loop."""

SORT_FROM = 24
"""Held-out items from which sorting the whole row is cheaper than comparing it with each of them."""

BLOCK_BYTES, BLOCK_USERS = 1 << 26, 64
"""A thread's block of scores: so many users, fewer where their scores of all items would be larger than this."""

COMPARED_BYTES = 1 << 18
"""Truth values held at once while comparing: half of a usual second-level cache."""


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def block_users(items: int) -> int:
    """How many users are scored at once: a function of the number of items alone, so that neither the threads nor which
    users are evaluated changes the last bits of a product."""
    return max(1, min(BLOCK_USERS, BLOCK_BYTES // (4 * max(1, items))))


def top(block: Scores, k: int) -> NDArray[np.intp]:
    """The columns of the k largest scores of each row, (rows, min(k, columns)), in descending order; ties by the lower
    column, at the end of the list too. -1 fills a row with fewer than k scores above -inf, which is never listed.

    Columns are dealt into groups; the k-th largest of the groups' maxima is a bound that at least k scores reach, and few
    more, so only groups that reach it are looked into: exact, and about a seventh of the time of `np.argpartition`.
    Raises ScoresNotFinite on NaN and +inf.
    """
    rows, columns = block.shape
    k = min(k, columns)
    lists = np.full((rows, k), -1, dtype=np.intp)
    if lists.size == 0:
        return lists
    groups = max(GROUPS, 16 * k)
    if 2 * groups > columns:
        groups = columns
    members, rest = divmod(columns, groups)
    dealt = block[:, : members * groups].reshape(rows, members, groups)
    maxima = dealt.max(axis=1)
    if rest:
        np.maximum(maxima[:, :rest], block[:, members * groups :], out=maxima[:, :rest])
    finite = maxima.max(axis=1) < np.inf  # a NaN makes the maximum NaN
    if not finite.all():
        raise ScoresNotFinite(rows=int(np.count_nonzero(~finite)))
    bound = np.maximum(np.partition(maxima, groups - k, axis=1)[:, groups - k], LOWEST)
    reached = maxima >= bound[:, None]
    tied = np.flatnonzero(np.count_nonzero(reached, axis=1) > 2 * k)
    reached[tied] = False

    row, group = np.divmod(np.flatnonzero(reached), groups)
    where, member = np.divmod(np.flatnonzero(dealt[row, :, group] >= bound[row, None]), members)
    found = [(row[where], member * groups + group[where])]
    if rest:
        short = np.flatnonzero(group < rest)
        column = members * groups + group[short]
        short = short[block[row[short], column] >= bound[row[short]]]
        found.append((row[short], members * groups + group[short]))
    found += [_tied(block[index], index, bound[index], k) for index in tied]
    row, column = (np.concatenate(side) for side in zip(*found, strict=True))
    order = np.lexsort((column, -block[row, column], row))
    row, column = row[order], column[order]
    place = np.arange(len(row)) - np.searchsorted(row, np.arange(rows))[row]
    listed = place < k
    lists[row[listed], place[listed]] = column[listed]
    return lists


def _tied(scores: Scores, row: np.intp, bound: np.float32, k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """What `top` looks for in a row where many scores equal its bound: of these only the first columns."""
    above = np.flatnonzero(scores > bound)
    equal = np.flatnonzero(scores == bound)[: max(0, k - len(above))]
    column = np.concatenate((above, equal))
    return np.full(len(column), row), column


def not_below(scores: Scores, held_out: Scores) -> int:
    """Over the held-out scores h: how many of `scores` are greater than h, plus how many are greater or equal: twice the
    pairs that are ordered wrongly, a tie being half wrong. Without NaN."""
    if len(held_out) >= SORT_FROM:
        ordered = np.sort(scores)
        below = ordered.searchsorted(held_out, "right").sum() + ordered.searchsorted(held_out, "left").sum()
        return 2 * len(scores) * len(held_out) - int(below)
    at_once = max(1, COMPARED_BYTES // max(1, len(scores)))
    total = 0
    for start in range(0, len(held_out), at_once):
        bound = held_out[start : start + at_once, None]
        total += int(np.count_nonzero(scores > bound)) + int(np.count_nonzero(scores >= bound))
    return total
