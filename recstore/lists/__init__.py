"""Every list at once: the answers of `recommend()` or `similar_items()` for all users or items, in a table or a file.

`blocks` computes (pure), `reading` reads one snapshot, `tables` and `output` write, `jobs` is the whole flow.
"""

from recstore.lists.jobs import MIN_USERS, ListsPlan, Made, plan, recommend_all, similar_all, write_defined

__all__ = ["MIN_USERS", "ListsPlan", "Made", "plan", "recommend_all", "similar_all", "write_defined"]
