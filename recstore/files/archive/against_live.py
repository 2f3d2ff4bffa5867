"""Compare a file with the live generation: its size, its items, and its quality on pairs that neither was trained on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from recstore.errors import FileRefused, ImportShrunk, RecstoreError
from recstore.evaluation import gate
from recstore.evaluation.gate import Verdict
from recstore.files.archive.contents import written
from recstore.files.archive.reading import Exported
from recstore.model import confidence, filters, held_out, trainers, vectors
from recstore.model.interactions import Interactions
from recstore.model.trained import Stored
from recstore.model.trainers import FoldIn
from recstore.postgres.connection import Connection
from recstore.publication import generations, stored
from recstore.runs import Run
from recstore.sql import queries
from recstore.sql.generation import Generation
from recstore.sql.objects import Registered


def fallen(connection: Connection, recommender: Registered, fitted: Exported, live: Generation) -> str | None:
    """Name what the file has far less of than the live generation: users, items, or items that both have."""
    max_fall = recommender.definition.gate.max_fall
    before = queries.one(connection, "generation_size", generation=live.number)
    words = gate.shrunk({"users": len(fitted.users), "items": len(fitted.items)}, before, max_fall)
    kind = recommender.item_type
    (known,) = connection.execute(
        f"SELECT count(*) AS items FROM {live.items} v WHERE v.item_id = ANY (%s::{kind.value}[])",  # noqa: S608
        [written(fitted.items.ids, kind)],
    )
    if not words and gate.shrunk(known, before, max_fall):
        words = [f"of the live generation's {before['items']:,} items it has {known['items']:,}"]
    return ", ".join(words) or None


def guard(run: Run, fitted: Exported, force: bool) -> None:
    """Refuse a file that holds far less than the live generation, in case it is the wrong file. Raises ImportShrunk."""
    live = generations.live(run.connection, run.recommender)
    words = None if live is None else fallen(run.connection, run.recommender, fitted, live)
    if words and force:
        run.warn(f"Published by force although it holds far less than the live generation: {words}.")
    elif words and live:
        most = f"{run.recommender.definition.gate.max_fall:.0%}"
        raise ImportShrunk(path=fitted.path, name=run.name, fallen=words, most=most, generation=live.number)


def as_stored(fitted: Exported, generation: int = 0, held_out: dict[str, Any] | None = None) -> Stored | None:
    """Return the model as it will be read back after its publication; None if the file has no data of a fold-in."""
    about, trained_on = fitted.about, fitted.item_users - fitted.item_held_out
    if about.fold_in is None:
        return None
    unit, length = fitted.item_embedding, fitted.item_length
    if about.rated:  # the embedding lacks the biases
        unit, length = fitted.item_preference, np.full_like(length, length.max())
    factors = vectors.factors_from(unit, length, about.factors)
    return Stored(
        generation=generation,
        items=fitted.items,
        item_users=fitted.item_users,
        fold_in=FoldIn(factors, trained_on, about.fold_in),
        confidence=confidence.restore(about.confidence, trained_on, about.users),
        alpha=about.training["alpha"],
        trainer=about.training["trainer"],
        definition=about.definition,
        held_out=held_out,
        weights=about.weights,
    )


def check_fold_in(fitted: Exported) -> None:
    """Fold a user of one view in, as proof that a later retrain can. Raises FileRefused."""
    try:
        model = as_stored(fitted)
        if model is None:
            return
        if not (isinstance(model.trainer, str) and 0 < float(model.alpha) < np.inf):
            raise ValueError
        first, items = np.zeros(1, np.int32), fitted.items
        one = Interactions(items, items, first, first, np.ones(1))  # a user by the name of an item
        if model.trainer in trainers.trainer_names():
            rows: sparse.csr_matrix = model.confidence.matrix(one, float(model.alpha))[:1]
            solved = trainers.trainer(model.trainer).solve_users(rows, model.fold_in)
            if not np.isfinite(solved).all():
                raise ValueError
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, RecstoreError) as error:
        reason = "its `training`, `confidence` and `fold_in` are not what folding a user in takes"
        raise FileRefused(path=fitted.path, reason=reason) from error


@dataclass(frozen=True, eq=False)
class Comparable:
    """The live generation as the gate compares it with the file's, or the reason why it is not compared."""

    live: Stored | None
    reason: str | None = None

    def details(self) -> dict[str, Any]:
        return {}

    def __str__(self) -> str:
        return f"not compared: {self.reason}" if self.reason else f"what {self.live} was not trained on"


def comparable(run: Run, new: Stored | None) -> Comparable:
    """Read the live generation, if held-out pairs can show which one is better."""
    live = stored.live(run)
    if live is None:
        return Comparable(None, "no live generation has the data for a fold-in")
    if new is None:
        return Comparable(None, "the file has no data for a fold-in")
    reason = gate.incomparable(live) or gate.incomparable(new)
    return Comparable(None if reason else live, reason)


def judge(run: Run, new: Stored, live: Stored, pulled: Interactions) -> Verdict:
    """Compare the file's model with the live one on pairs that neither was trained on, as a retrain does."""
    definition, key = run.recommender.definition, run.recommender.held_out_key
    interactions, _ = filters.apply(pulled, definition.filters)
    held = held_out.choose(interactions, key, definition.gate.held_out)
    return gate.judge(
        interactions, held, key, new, live, tolerance=definition.gate.tolerance, threads=run.settings.threads
    )
