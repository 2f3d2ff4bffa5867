"""Every list at once: the answers of `recommend()` or `similar_items()` for all users or items, in a table or a file.

`blocks` computes (pure), `snapshots` reads, `tables` and `output` write, `writing` is the whole flow.
"""

from recstore.lists.writing import ListsPlan, Made, plan, recommend_all, similar_all, write_defined

__all__ = ["ListsPlan", "Made", "plan", "recommend_all", "similar_all", "write_defined"]
