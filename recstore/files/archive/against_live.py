"""Compare a file with the live generation: its size, its items, and its quality on pairs that neither was trained on."""

import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from recstore.errors import FileRefused, ImportShrunk, RecstoreError
from recstore.evaluation import gate
from recstore.evaluation.gate import Verdict
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
from recstore.types import IdType


def python_ids(ids: pa.Array, kind: IdType) -> list[Any]:
    """Return ids as psycopg takes them."""
    plain: list[Any] = ids.to_pylist()
    return [uuid.UUID(bytes=value) for value in plain] if kind is IdType.UUID else plain


def fallen(connection: Connection, recommender: Registered, fitted: Exported, live: Generation) -> str | None:
    """Name what the file has far less of than the live generation: users, items, or items that both have."""
    max_fall = recommender.definition.gate.max_fall
    before = connection.execute(queries.query("generation_size"), {"generation": live.number}).fetchone()
    assert before is not None
    words = gate.shrunk({"users": len(fitted.users), "items": len(fitted.items)}, before, max_fall)
    kind = recommender.item_type
    known = connection.execute(
        f"SELECT count(*) AS items FROM {live.items} v WHERE v.item_id = ANY (%s::{kind.value}[])",  # noqa: S608
        [python_ids(fitted.items.ids, kind)],
    ).fetchone()
    assert known is not None
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


def as_stored(fitted: Exported, generation: int, recommender: Registered) -> Stored | None:
    """Return the model as it will be read back after its publication; None if the file has no data of a fold-in."""
    about = fitted.about
    if about.fold_in is None:
        return None
    return Stored(
        generation=generation,
        items=fitted.items,
        item_users=fitted.item_users,
        fold_in=_fold_in(fitted, about.fold_in),
        confidence=_confidence(fitted),
        alpha=about.training["alpha"],
        trainer=about.training["trainer"],
        definition=about.definition,
        held_out=fitted.held_out(recommender.user_type, recommender.item_type, recommender.held_out_key),
    )


def check_fold_in(fitted: Exported) -> None:
    """Fold a user of one view in, as proof that a later retrain can. Raises FileRefused."""
    about = fitted.about
    if about.fold_in is None:
        return
    try:
        model = _confidence(fitted)
        if not (isinstance(about.training["trainer"], str) and 0 < float(about.training["alpha"]) < np.inf):
            raise ValueError
        one = Interactions(
            fitted.items, fitted.items, np.zeros(1, np.int32), np.zeros(1, np.int32), np.ones(1)
        )  # a user by the name of an item
        if about.training["trainer"] in trainers.trainer_names():
            rows: sparse.csr_matrix = model.matrix(one, float(about.training["alpha"]))[:1]
            solved = trainers.trainer(about.training["trainer"]).solve_users(rows, _fold_in(fitted, about.fold_in))
            if not np.isfinite(solved).all():
                raise ValueError
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, RecstoreError) as error:
        reason = "its `training`, `confidence` and `fold_in` are not what folding a user in takes"
        raise FileRefused(path=fitted.path, reason=reason) from error


def _confidence(fitted: Exported) -> confidence.ConfidenceModel:
    about = fitted.about
    return confidence.restore(about.confidence, fitted.item_users - fitted.item_held_out, about.users)


def _fold_in(fitted: Exported, constants: dict[str, Any]) -> FoldIn:
    factors = vectors.factors_from(fitted.item_embedding, fitted.item_length, fitted.about.factors)
    return FoldIn(factors, fitted.item_users - fitted.item_held_out, constants)


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
    generation = generations.live(run.connection, run.recommender)
    if generation is None:
        return Comparable(None, "there is no live generation")
    live = stored.read(run.connection, run.url, generation, run.application_name)
    if live is None:
        return Comparable(None, f"{generation} is of an older recstore")
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
