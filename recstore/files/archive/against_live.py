"""What a file must not be, beside the live generation: far smaller or about other items, as the wrong file would be; or worse
on pairs that neither was trained on."""

import uuid
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from recstore.errors import FileRefused, ImportRefused, ImportShrunk, RecstoreError
from recstore.evaluation import gate
from recstore.files.archive.adapting import Fitted
from recstore.model import confidence, filters, held_out, trainers, vectors
from recstore.model.interactions import Interactions
from recstore.model.trained import Stored
from recstore.model.trainers import FoldIn
from recstore.postgres.connection import Connection
from recstore.publication import generations, stored
from recstore.runs import Run
from recstore.sql import queries
from recstore.sql.objects import Registered
from recstore.types import IdType


def python_ids(ids: pa.Array, kind: IdType) -> list[Any]:
    """As psycopg takes them."""
    plain: list[Any] = ids.to_pylist()
    return [uuid.UUID(bytes=value) for value in plain] if kind is IdType.UUID else plain


def fallen(connection: Connection, recommender: Registered, fitted: Fitted, live: int) -> str | None:
    """What the file has far less of than the live generation, in words: users, items, or items that both have."""
    least = 1 - recommender.definition.gate.max_fall
    row = connection.execute(queries.query("generation_size"), {"generation": live}).fetchone()
    assert row is not None
    kind = recommender.item_type
    known = connection.execute(
        f"SELECT count(*) AS items FROM {generations.table(recommender, 'items', live)} v"  # noqa: S608
        f" WHERE v.item_id = ANY (%s::{kind.value}[])",
        [python_ids(fitted.items.ids, kind)],
    ).fetchone()
    assert known is not None
    told = [
        f"{now:,} {side} instead of {row[side]:,} ({now / row[side] - 1:+.0%})"
        for side, now in (("users", len(fitted.users)), ("items", len(fitted.items)))
        if now < least * row[side]
    ]
    if not told and known["items"] < least * row["items"]:
        told.append(f"of the live generation's {row['items']:,} items it has {known['items']:,}")
    return ", ".join(told) or None


def guard(run: Run, fitted: Fitted, force: bool) -> None:
    """The wrong file costs nobody the live generation. Raises ImportShrunk."""
    live = generations.live(run.connection, run.recommender)
    told = None if live is None else fallen(run.connection, run.recommender, fitted, live)
    if told and force:
        run.warn(f"Published by force although it holds far less than the live generation: {told}.")
    elif told:
        most = f"{run.recommender.definition.gate.max_fall:.0%}"
        raise ImportShrunk(path=fitted.path, name=run.name, fallen=told, most=most, generation=live)


def as_stored(fitted: Fitted, generation: int, recommender: Registered) -> Stored | None:
    """As it will be read back once it is published; None where the file lacks what a fold-in takes."""
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


def check_fold_in(fitted: Fitted) -> None:
    """Folds a user of one view in, so that what a later retrain reads of the file is there. Raises FileRefused."""
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


def _confidence(fitted: Fitted) -> confidence.ConfidenceModel:
    about = fitted.about
    return confidence.restore(about.confidence, fitted.item_users - fitted.item_held_out, about.users)


def _fold_in(fitted: Fitted, constants: dict[str, Any]) -> FoldIn:
    factors = vectors.factors_from(fitted.item_embedding, fitted.item_length, fitted.about.factors)
    return FoldIn(factors, fitted.item_users - fitted.item_held_out, constants)


def live_to_compare(run: Run, new: Stored | None) -> Stored | None:
    """The live generation, if held-out pairs can tell which is better; a stage says why they can not."""
    if not run.recommender.definition.gate.held_out:
        return None
    with run.stage("hold out") as details:
        number = generations.live(run.connection, run.recommender)
        live = (
            stored.read(run.connection, run.url, run.recommender, number, run.application_name)
            if number is not None
            else None
        )
        unknown = None
        if live is None:
            unknown = (
                "there is no live generation" if number is None else f"generation {number} is of an older recstore"
            )
        elif new is None:
            unknown = "the file lacks what a fold-in takes"
        else:
            unknown = gate.incomparable(live) or gate.incomparable(new)
        details["told"] = f"not compared: {unknown}" if unknown else f"what generation {number} was not trained on"
    return None if unknown else live


def judge(run: Run, fitted: Fitted, new: Stored, live: Stored, pulled: Interactions, force: bool) -> None:
    """Compares the two on what neither was trained on, as a retrain does. Raises ImportRefused where the file's is worse."""
    definition, key = run.recommender.definition, run.recommender.held_out_key
    with run.stage("gate") as details:
        interactions, _ = filters.apply(pulled, definition.filters)
        held = held_out.choose(interactions, key, definition.gate.held_out)
        comparison, unknown = gate.compare(interactions, held, key, new, live, run.settings.threads)
        refused = comparison is not None and comparison.worse(definition.gate.tolerance)
        details |= {"told": str(comparison or f"not compared: {unknown}"), "refused": refused and not force}
    if refused and not force:
        raise ImportRefused(
            generation=run.generation, name=run.name, path=fitted.path, comparison=comparison,
            tolerance=f"{definition.gate.tolerance:.0%}", live=live.generation,
        )  # fmt: skip
    if refused:
        run.warn(f"Published by force although it is worse than the live generation: {comparison}.")
