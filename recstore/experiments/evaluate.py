"""How good a recommender's definition is on interactions it has not seen: the composition root of an evaluation.

    source -> interactions -> filters -> split -> measure -> examples

Reads the source once and changes nothing: no lock, no run, no generation of the recommender.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psycopg
from numpy.typing import NDArray

from recstore import registry
from recstore.config import Settings
from recstore.definition import Definition, Source
from recstore.errors import InvalidInput, SourceInvalid
from recstore.evaluation import examples, pair_files, split_files, splits
from recstore.evaluation.results import Evaluation, Example
from recstore.evaluation.splits import Split, SplitChoice
from recstore.experiments.measure import Measured, Store, Wanted, described, measure
from recstore.experiments.steps import Steps
from recstore.model import filters, trainers
from recstore.model.interactions import Interactions
from recstore.operations import questions
from recstore.postgres.connection import Connection, connect, one_line, plain_errors
from recstore.runs import Reporter, Silent
from recstore.source import inspection, pulling, selects
from recstore.sql.objects import Registered
from recstore.sql.schema_revision import require_current

UNTRIED = ("source", "candidates", "storage", "publication", "gate", "schedule", "lists")
"""Sections of a definition that are not tried by an evaluation."""


@dataclass(frozen=True)
class TestPairs:
    """A test set that is given: the SELECT of its pairs, user_id and item_id, or a file of them."""

    query: str | None = None
    file: Path | None = None


def chosen_part(
    by: str | None,
    share: float | None,
    items: int | None,
    seed: int,
    query: str | None = None,
    file: Path | None = None,
) -> SplitChoice | TestPairs:
    """The test part that these options name: split off, or given by a query or a file. Raises InvalidInput."""
    if query is None and file is None:
        return SplitChoice(by, share, items, seed)  # type: ignore[arg-type]
    if query is not None and file is not None:
        raise InvalidInput("Give one test set: --test-query or --test-file.")
    if by is not None or share is not None or items is not None:
        raise InvalidInput("A test set that is given is not split off: leave out --split, --share and --items.")
    if file is not None:
        pair_files.check(file)
    return TestPairs(query, file)


def evaluate(
    url: str,
    settings: Settings,
    name: str,
    wanted: Wanted,
    split: SplitChoice | TestPairs,
    *,
    definition: Definition | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Measures recommender `name` as it is defined, or with another `definition` of the same source, on a test part that
    its training does not see: the filtered interactions without it are trained on. The filters see all of them, since they
    say what the catalogue is.

    With `wanted.through_sql` a scratch recommender is made and removed; otherwise nothing is written at all. Raises
    RecstoreError.
    """
    steps = Steps(reporter or Silent())
    taken_at = datetime.now(UTC).isoformat(timespec="seconds")
    with connect(url, "recstore:evaluate") as connection, plain_errors(f"evaluating {name!r}", connection):
        connection.execute("SET default_transaction_read_only = on")
        require_current(connection)
        recommender = registry.get(connection, name)
        definition = definition or recommender.definition
        trainers.trainer(definition.hyperparameters.trainer)  # a wrong name is said before anything is read
        interactions = interactions_of(url, settings, connection, recommender, definition, steps)
        parts = parts_of(connection, settings, recommender, interactions, split, wanted, steps)
        measured = measure(
            parts,
            definition,
            wanted,
            steps,
            settings,
            name=name,
            most_factors=recommender.dimensions,
            store=Store(url, recommender.user_type, recommender.item_type, recommender.dimensions),
        )
        shown = examples_of(connection, recommender, parts.refit(), measured, steps.reporter)
    return described(name, parts, wanted, measured, shown, taken_at)


def interactions_of(
    url: str,
    settings: Settings,
    connection: Connection,
    recommender: Registered,
    definition: Definition,
    steps: Steps,
) -> Interactions:
    """The source through the view of the recommender, as a retrain reads it, then the filters."""
    name = recommender.name
    with steps.step("read") as details:
        pulled, report, _ = pulling.read(
            url,
            settings,
            name,
            definition.source,
            recommender.user_type,
            recommender.item_type,
            application_name="recstore:evaluate",
            has_last_at=inspection.has_last_at(connection, name),
            with_times=True,
            expected=inspection.expected_rows(connection, name),
            on_rows=lambda done, total: steps.reporter.progress("read", done, total),
        )
        details |= report.as_dict()
    with steps.step("filter") as details:
        interactions, drops = filters.apply(pulled, definition.filters)
        details |= {"users": len(interactions.users), "items": len(interactions.items), "pairs": len(interactions)}
        details["dropped"] = [str(drop) for drop in drops]
    return interactions


def parts_of(
    connection: Connection,
    settings: Settings,
    recommender: Registered,
    interactions: Interactions,
    choice: SplitChoice | TestPairs,
    wanted: Wanted,
    steps: Steps,
) -> Split:
    """The interactions split as `choice` says, with a validation part where a curve is wanted."""
    validation = wanted.curve > 0
    with steps.step("split") as details:
        if isinstance(choice, SplitChoice):
            found = splits.choose(interactions, choice, validation=validation)
        else:
            test = _given(connection, settings, recommender, choice)
            train = interactions.part(~_among(interactions, test))
            if not len(train):
                raise InvalidInput("The test set holds every pair of the source, so there is nothing to train on.")
            found = splits.given(train, test, wanted.seed, validation=validation)
        details |= {"how": found.how, "train_pairs": len(found.train), "test_pairs": len(found.test)}
        details["told"] = found.how
    return found


def _given(connection: Connection, settings: Settings, recommender: Registered, choice: TestPairs) -> Interactions:
    """The pairs of a query or a file, with ids of the recommender's types."""
    if choice.file is not None:
        pairs = pair_files.read_pairs(choice.file)
        return split_files.build(pairs, recommender.user_type, recommender.item_type)[0]
    assert choice.query is not None
    query = choice.query.strip().rstrip(";")
    try:
        selects.columns_of(connection, query, SourceInvalid, "what it reads")
        shape = inspection.inspect(
            connection,
            Source(query=f"SELECT t.user_id, t.item_id, 1 AS value FROM (\n{query}\n) t"),  # noqa: S608
        )
    except SourceInvalid as error:
        raise InvalidInput(
            f"The test query can not be read: {error.reason}. It is a SELECT of user_id and item_id; try it in psql first."
        ) from None
    with connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = {int(settings.source_timeout * 1000)}")
        text = (
            "SELECT t.user_id::text, t.item_id::text FROM ({}) t WHERE t.user_id IS NOT NULL AND t.item_id IS NOT NULL"
        )
        rows = connection.execute(text.format(shape.select)).fetchall()
    ids = [(row["user_id"], row["item_id"]) for row in rows]
    return split_files.from_rows(ids, recommender.user_type, recommender.item_type, "The test query")


def _among(interactions: Interactions, others: Interactions) -> NDArray[np.bool_]:
    """Which of the pairs are among the others, whose id maps may differ."""
    users = interactions.users.lookup(others.users.ids)[others.user_index].astype(np.int64)
    items = interactions.items.lookup(others.items.ids)[others.item_index]
    known = (users >= 0) & (items >= 0)
    width = len(interactions.items)
    keys = interactions.user_index.astype(np.int64) * width + interactions.item_index
    return np.isin(keys, users[known] * width + items[known])


def examples_of(
    connection: Connection, recommender: Registered, split: Split, measured: Measured, reporter: Reporter
) -> list[Example]:
    """Lists of similar items with their titles, for a person to judge."""
    train = split.train
    found = examples.similar_items(measured.item_factors, np.bincount(train.item_index, minlength=len(train.items)))
    index = sorted({n for similar in found for n in (similar.item, *(item for item, _ in similar.similar))})
    ids = {n: train.items.to_python(n) for n in index}
    try:
        titles = questions.titles_of(connection, recommender, list(ids.values()))
    except psycopg.DatabaseError as error:  # no reason to throw the metrics away
        titles = {}
        reporter.warn(f"The titles can not be read: {one_line(error)}.")

    def title(n: int) -> str:
        return titles.get(ids[n]) or str(ids[n])

    return [
        Example(
            f"Similar to {title(similar.item)} ({similar.users:,} users)",
            [(title(item), round(cosine, 4)) for item, cosine in similar.similar],
        )
        for similar in found
    ]
