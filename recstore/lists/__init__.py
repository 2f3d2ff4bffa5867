"""The list of every user, or of every item, in one go: what `recommend()` and `similar_items()` answer, written to a table or a
file.

`blocks` scores (pure), `reading` reads the live generation and who has seen what in one snapshot, `tables` and `files` write,
`jobs` is the whole of it on one screen.
"""

from recstore.lists.jobs import MIN_USERS, Made, Plan, plan, recommend_all, similar_all, write_defined

__all__ = ["MIN_USERS", "Made", "Plan", "plan", "recommend_all", "similar_all", "write_defined"]
