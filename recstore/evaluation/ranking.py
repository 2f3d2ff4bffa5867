"""Rank blocks of scores: the best k of each row, and the number of pairs in correct order.

Pure NumPy on a dense block (rows x columns, float32) with items as columns, in ascending index. Both passes read a block once
or twice while it is in the cache, and release Python's global lock.
"""

import numpy as np

from recstore.errors import ScoresNotFinite
from recstore.model.arrays import Matrix, Positions

LOWEST = np.finfo(np.float32).min
"""The smallest score that may be listed; -inf marks items that may not."""

GROUPS = 1024
"""Minimum number of groups of columns (or 16 per place of the list): more makes the inner loop longer."""

SORT_FROM = 24
"""Number of held-out items from which sorting the row is cheaper than comparing it with each of them."""

BLOCK_BYTES, BLOCK_USERS = 1 << 26, 64
"""Limits of a thread's block of scores, in bytes and in users."""

COMPARED_BYTES = 1 << 18
"""Bytes of truth values to hold while comparing: half of a usual second-level cache."""


def block_users(items: int) -> int:
    """Return the number of users to score at once. It depends on the number of items alone, so that neither threads nor the
    selection of users change the last bits of a product."""
    return max(1, min(BLOCK_USERS, BLOCK_BYTES // (4 * max(1, items))))


def top(block: Matrix, k: int) -> Positions:
    """Return the columns of the k largest scores of each row, (rows, min(k, columns)), in descending order. Ties go to the
    lower column. Scores of -inf are never listed; -1 fills the rest of a row.

    Columns are distributed to groups. At least k scores, and few more, reach the k-th largest of the groups' maxima, so only
    groups that reach it are searched. This is exact and takes a seventh of the time of `np.argpartition`. Raises
    ScoresNotFinite for NaN and +inf.
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


def _tied(scores: Matrix, row: np.intp, bound: np.float32, k: int) -> tuple[Positions, Positions]:
    """Return row and columns for `top` where many scores equal the bound: of those only the first columns."""
    above = np.flatnonzero(scores > bound)
    equal = np.flatnonzero(scores == bound)[: max(0, k - len(above))]
    column = np.concatenate((above, equal))
    return np.full(len(column), row), column


def not_below(scores: Matrix, held_out: Matrix) -> int:
    """Return the number of `scores` greater than h plus the number greater or equal, summed over the held-out scores h.

    This is twice the number of pairs in wrong order, with half for a tie. Scores must not be NaN."""
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
