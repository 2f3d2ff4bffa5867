"""Solve users and new items against the items of a trained model, which stay as they are. Pure.

Users are solved as SQL folds them in, from what a generation publishes for that. An item that came after the training is
solved from its users as the training's own step on items would, without the pairs that are held out for the gate.
"""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recstore.model import confidence, held_out, trainers, vectors
from recstore.model.arrays import Mask, Positions
from recstore.model.interactions import IdMap, Interactions
from recstore.model.ratings import Ratings
from recstore.model.trained import Stored
from recstore.model.trainers import FoldIn, QueryFoldIn
from recstore.model.vectors import ItemVectors, UserVectors
from recstore.wording import counted


@dataclass(frozen=True, eq=False)
class Live:
    """A model, what its generation publishes for the fold-in by SQL, and which of its items a training has made."""

    model: Stored
    queries: QueryFoldIn
    trained: Mask  # (items,)
    users: int
    longest: float
    """The greatest length of a trained item."""

    def details(self) -> dict[str, Any]:
        return self.model.details() | {"items": len(self.trained), "trained_items": int(self.trained.sum())}

    def __str__(self) -> str:
        return str(self.model)


@dataclass(frozen=True, eq=False)
class Solved:
    """All users of the interactions, and the items that came after the training, those of earlier refreshes included."""

    interactions: Interactions  # over the model's items and the new ones
    users: UserVectors
    items: Positions  # of the solved items
    vectors: ItemVectors  # of the solved items
    queries: QueryFoldIn  # of the solved items
    clipped: int
    unsolved: int
    """Number of new items that the trainer cannot solve."""

    def details(self) -> dict[str, Any]:
        figures = {"users": len(self.interactions.users), "items": len(self.items)}
        return figures | {"clipped": self.clipped, "unsolved": self.unsolved}

    def __str__(self) -> str:
        words = f"{counted(len(self.interactions.users), 'user')} and {counted(len(self.items), 'new item')}"
        if self.clipped:
            words += f", {self.clipped:,} of them shortened to the longest trained item"
        return words + (f"; {self.unsolved:,} new items wait for the next training" if self.unsolved else "")


def solve(live: Live, interactions: Interactions, key: UUID, dimensions: int, threads: int = 0) -> Solved:
    """Solve the new items of the interactions, then all their users. Raises TrainingDiverged."""
    model = live.model
    solvable = trainers.solves_items(model.trainer)
    unknown = model.items.lookup(interactions.items.ids) < 0
    ids = model.items.ids
    if solvable and unknown.any():
        together = pa.concat_arrays([ids, interactions.items.ids.filter(pa.array(unknown))])
        ids = together.take(pc.sort_indices(together))
    items, unsolved = IdMap(ids), 0 if solvable else int(unknown.sum())
    place = items.lookup(model.items.ids)
    trained = np.zeros(len(items), dtype=np.bool_)
    trained[place] = live.trained

    index = items.lookup(interactions.items.ids)[interactions.item_index]
    known = replace(interactions, items=items, item_index=index).part(index >= 0)
    users_of = known.item_users()
    item_users = np.where(trained, 0, users_of)
    item_users[place[live.trained]] = model.fold_in.item_users[live.trained]
    weights = confidence.restore(model.confidence.constants(), item_users, live.users)
    new = np.flatnonzero(~trained & (users_of > 0))

    queries = QueryFoldIn(
        whitened=_laid_out(live.queries.whitened, place, len(items)),
        basis=live.queries.basis,
        summands=_laid_out(live.queries.summands, place, len(items)),
        solved_weight=live.queries.solved_weight,
        bias=model.fold_in.item_factors[:, -1].astype(np.float64) if isinstance(weights, Ratings) else None,
    )
    factors = np.zeros((0, model.fold_in.item_factors.shape[1]), dtype=np.float32)
    if len(new):
        pairs = weights.matrix(known.part(~_held_out(live, known, key)), model.alpha)
        seen = pairs[:, place[live.trained]]
        of_training = replace(
            model.fold_in,
            item_factors=model.fold_in.item_factors[live.trained],
            item_users=model.fold_in.item_users[live.trained],
        )
        factors = trainers.solve_items(model.trainer, seen, pairs[:, new], of_training, threads)
    solved, clipped = vectors.later_items(factors, dimensions, live.longest)
    published = QueryFoldIn(idf=None if weights.idf is None else weights.idf[new])
    if len(new):
        factors = vectors.factors_from(solved.embedding, solved.length, factors.shape[1])
        given = replace(model.fold_in, item_factors=factors, item_users=users_of[new])
        published = replace(trainers.later_items(model.trainer, given, queries), idf=published.idf)
        for all_of, of_new in ((queries.whitened, published.whitened), (queries.summands, published.summands)):
            if all_of is not None:
                all_of[new] = of_new
    x = trainers.fold_in(queries, weights.matrix(known, model.alpha), threads)
    return Solved(known, vectors.user_vectors(x, dimensions), new, solved, published, clipped, unsolved)


def for_queries(model: Stored, trained: Mask) -> QueryFoldIn | None:
    """Return the input for folding in by SQL of a model whose other items came after its training."""
    if trained.all():
        return model.for_queries()

    def part(rows: Mask) -> FoldIn:
        fold_in = model.fold_in
        return replace(fold_in, item_factors=fold_in.item_factors[rows], item_users=fold_in.item_users[rows])

    found = trainers.for_queries(model.trainer, part(trained))
    if found is None:
        return None
    later = trainers.later_items(model.trainer, part(~trained), found)
    whitened, summands = (
        _laid_out(rows, np.flatnonzero(trained), len(trained)) for rows in (found.whitened, found.summands)
    )
    for all_of, of_new in ((whitened, later.whitened), (summands, later.summands)):
        if all_of is not None:
            all_of[~trained] = of_new
    return replace(found, whitened=whitened, summands=summands, idf=model.confidence.idf)


def _laid_out(rows: Any, place: Positions, items: int) -> Any:
    """Return the rows of the model's items at their places among `items`, zeros for the others."""
    if rows is None:
        return None
    laid = np.zeros((items, rows.shape[1]), dtype=np.float32)
    laid[place] = rows
    return laid


def _held_out(live: Live, interactions: Interactions, key: UUID) -> Mask:
    """Return the pairs that no solve of items may see."""
    bounds = live.model.held_out
    if not bounds:
        return np.zeros(len(interactions), dtype=np.bool_)
    return held_out.within(interactions, key, bounds["users_below"], bounds["pairs_below"])
