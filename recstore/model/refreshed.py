"""Solve users, and the items with many other users than before, against a trained model. Pure.

Users are solved as SQL folds them in, from what a generation publishes for that: in the coordinates of the training, whose Gram
matrix stays. An item is solved as the training's own step on items would, without the pairs that are held out for the gate.
"""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recstore.model import confidence, held_out, trainers, vectors
from recstore.model.arrays import Mask, Positions
from recstore.model.interactions import IdMap, Interactions
from recstore.model.ratings import Ratings
from recstore.model.trained import Stored
from recstore.model.trainers import QueryFoldIn
from recstore.model.vectors import ItemVectors, UserVectors
from recstore.wording import counted

CHANGED = 0.1
"""Change of the number of users of an item, relative to that when it was solved, above which it is solved again: decision 31."""


@dataclass(frozen=True, eq=False)
class Live:
    """A model, and what its generation publishes for the fold-in by SQL."""

    model: Stored
    queries: QueryFoldIn
    longest: float
    """The length by which the items are divided."""

    def details(self) -> dict[str, Any]:
        return self.model.details() | {"items": len(self.model.items)}

    def __str__(self) -> str:
        return str(self.model)


@dataclass(frozen=True, eq=False)
class Solved:
    """All users of the interactions, and the items that are new or have many other users."""

    interactions: Interactions  # over the model's items and the new ones
    users: UserVectors
    items: Positions  # of the solved items
    vectors: ItemVectors  # of the solved items
    queries: QueryFoldIn  # of the solved items
    held_out: NDArray[np.int64]  # number of held-out pairs of the solved items
    clipped: int
    unsolved: int
    """Number of new items that the trainer cannot solve."""

    def details(self) -> dict[str, Any]:
        figures = {"users": len(self.interactions.users), "items": len(self.items)}
        return figures | {"clipped": self.clipped, "unsolved": self.unsolved}

    def __str__(self) -> str:
        words = f"{counted(len(self.interactions.users), 'user')} and {counted(len(self.items), 'item')}"
        if self.clipped:
            words += f", {self.clipped:,} of them shortened to the longest trained item"
        return words + (f"; {self.unsolved:,} new items wait for the next training" if self.unsolved else "")


def solve(live: Live, interactions: Interactions, key: UUID, dimensions: int, threads: int = 0) -> Solved:
    """Solve the new and the changed items of the interactions, then all their users. Raises TrainingDiverged."""
    model = live.model
    solvable = trainers.solves_items(model.trainer)
    unknown = (model.items.lookup(interactions.items.ids) < 0) & (interactions.item_users() > 0)
    ids = model.items.ids
    if solvable and unknown.any():
        together = pa.concat_arrays([ids, interactions.items.ids.filter(pa.array(unknown))])
        ids = together.take(pc.sort_indices(together))
    items, unsolved = IdMap(ids), 0 if solvable else int(unknown.sum())
    place = items.lookup(model.items.ids)
    index = items.lookup(interactions.items.ids)[interactions.item_index]
    known = replace(interactions, items=items, item_index=index).part(index >= 0)

    users_of, before = known.item_users(), np.zeros(len(items))
    before[place] = model.item_users
    changed = (users_of > 0) & (np.abs(users_of - before) > CHANGED * before) & solvable
    held = _held_out(live, known, key) & known.liked
    item_users = known.part(~held).item_users()

    weights = confidence.restore(model.confidence.constants(), item_users, len(known.users))
    if not isinstance(weights, Ratings) and weights.idf is not None and live.queries.idf is not None:
        idf = _laid_out(live.queries.idf, place, len(items))
        weights = replace(weights, idf=np.where(changed, weights.idf, idf))
    queries = replace(
        live.queries,
        whitened=_laid_out(live.queries.whitened, place, len(items)),
        summands=_laid_out(live.queries.summands, place, len(items)),
        bias=model.fold_in.item_factors[:, -1].astype(np.float64) if isinstance(weights, Ratings) else None,
    )
    factors = np.zeros((0, model.fold_in.item_factors.shape[1]), dtype=np.float32)
    if changed.any():
        pairs = weights.matrix(known.part(~held), model.alpha)
        factors = trainers.solve_items(model.trainer, pairs[:, place], pairs[:, changed], model.fold_in, threads)
    solved, clipped = vectors.later_items(factors, dimensions, live.longest, model.weights(users_of[changed]))
    published = QueryFoldIn(idf=None if weights.idf is None else weights.idf[changed])
    if changed.any():
        factors = vectors.factors_from(solved.embedding, solved.length, factors.shape[1])
        given = replace(model.fold_in, item_factors=factors, item_users=item_users[changed])
        published = replace(trainers.later_items(model.trainer, given, queries), idf=published.idf)
        for all_of, of_changed in ((queries.whitened, published.whitened), (queries.summands, published.summands)):
            if all_of is not None:
                all_of[changed] = of_changed
    x = trainers.fold_in(queries, weights.matrix(known, model.alpha), threads)
    return Solved(
        interactions=known,
        users=vectors.user_vectors(x, dimensions),
        items=np.flatnonzero(changed),
        vectors=solved,
        queries=published,
        held_out=(users_of - item_users)[changed],
        clipped=clipped,
        unsolved=unsolved,
    )


def _laid_out(rows: Any, place: Positions, items: int) -> Any:
    """Return the rows of the model's items at their places among `items`, zeros for the others."""
    if rows is None:
        return None
    laid = np.zeros((items, *rows.shape[1:]), dtype=rows.dtype)
    laid[place] = rows
    return laid


def _held_out(live: Live, interactions: Interactions, key: UUID) -> Mask:
    """Return the pairs that no solve of items may see."""
    bounds = live.model.held_out
    if not bounds:
        return np.zeros(len(interactions), dtype=np.bool_)
    return held_out.within(interactions, key, bounds["users_below"], bounds["pairs_below"])
