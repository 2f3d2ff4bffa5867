"""Measure a recommender's definition on interactions that its training does not see.

    source -> interactions -> filters -> split -> measure -> examples

Reads the source once and changes nothing: no lock, no run, no generation of the recommender.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from recstore import registry
from recstore.config import Settings
from recstore.definition import Definition
from recstore.errors import InvalidInput, SourceInvalid
from recstore.evaluation import splits
from recstore.evaluation.results import Evaluation
from recstore.evaluation.splits import SEED, Split, SplitChoice
from recstore.experiments.experiment import Experiment
from recstore.experiments.measurement import Measurement, Titles, measure
from recstore.experiments.scratch import Store
from recstore.files import pair_files, split_files
from recstore.model import filters, trainers
from recstore.model.interactions import Interactions
from recstore.operations import questions
from recstore.postgres.connection import Connection, connect, one_line, plain_errors, reading_application
from recstore.runs import Reporter, Silent, described
from recstore.source import pulling, selects
from recstore.sql.objects import Registered
from recstore.sql.schema_revision import require_current


@dataclass(frozen=True)
class TestPairs:
    """A given test set: the SELECT of its pairs, user_id and item_id, or a file of them."""

    query: str | None = None
    file: Path | None = None
    seed: int = SEED
    """Seed of the validation part."""

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {"query": self.query, "file": None if self.file is None else str(self.file)}


def chosen_part(
    by: str | None,
    share: float | None,
    items: int | None,
    seed: int,
    query: str | None = None,
    file: Path | None = None,
) -> SplitChoice | TestPairs:
    """Return the test part that these options name: split off, or given by a query or a file. Raises InvalidInput."""
    if query is None and file is None:
        return SplitChoice(by, share, items, seed)  # type: ignore[arg-type]
    if query is not None and file is not None:
        raise InvalidInput("Give one test set: --test-query or --test-file.")
    if by is not None or share is not None or items is not None:
        raise InvalidInput("A given test set is not split off: leave out --split, --share and --items.")
    if file is not None:
        pair_files.check(file)
    return TestPairs(query, file, seed)


def evaluate(
    url: str,
    settings: Settings,
    name: str,
    wanted: Measurement,
    split: SplitChoice | TestPairs,
    *,
    definition: Definition | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Measure recommender `name` as it is defined, or with another `definition` of the same source.

    Trains on the filtered interactions without the test part. The filters see all of them, since they decide what the
    catalogue is. With `wanted.through_sql` a scratch recommender is made and removed; otherwise nothing is written at all.
    Raises RecstoreError.
    """
    experiment = Experiment(settings, reporter or Silent())
    with connect(url, "recstore:evaluate") as connection, plain_errors(f"evaluating {name!r}", connection):
        connection.execute("SET default_transaction_read_only = on")
        require_current(connection)
        recommender = registry.get(connection, name)
        experiment.most_factors = recommender.dimensions
        definition = definition or recommender.definition
        trainers.trainer(definition.hyperparameters.trainer)  # a wrong name is reported before anything is read
        parts = read_split(url, connection, experiment, recommender, definition, split, validation=wanted.curve > 0)
        store = Store(url, recommender.user_type, recommender.item_type, recommender.dimensions)
        titles = titles_of(connection, recommender, experiment.reporter)
        return measure(experiment, parts, definition, wanted, name=name, store=store, titles=titles)


def read_split(
    url: str,
    connection: Connection,
    experiment: Experiment,
    recommender: Registered,
    definition: Definition,
    choice: SplitChoice | TestPairs,
    *,
    validation: bool,
) -> Split:
    """Read the source through the recommender's view, as a retrain does, filter it, and split it as `choice` says."""
    with experiment.step("read") as details:
        pulled = pulling.read(
            connection,
            url,
            experiment.settings,
            recommender,
            definition.source,
            application_name="recstore:evaluate",
            with_times=True,
            on_rows=experiment.progress("read"),
        )
        details |= described(pulled)
    with experiment.step("filter") as details:
        filtered = filters.apply(pulled.interactions, definition.filters)
        details |= described(filtered)
    interactions = filtered.interactions
    with experiment.step("split") as details:
        if isinstance(choice, SplitChoice):
            found = splits.choose(interactions, choice, validation=validation)
        else:
            test = _given(connection, experiment.settings, recommender, choice)
            train = splits.without(interactions, test)
            known = splits.common(interactions, test)  # with ratings and times, which a query has not
            if definition.source.explicit:
                test = known
            if not len(train):
                raise InvalidInput("The test set holds every pair of the source, so there is nothing to train on.")
            found = splits.given(train, test, choice.seed, validation=validation, when=known.times)
        details |= {"how": found.how, "train_pairs": len(found.train), "test_pairs": len(found.test)}
        details["told"] = found.how
    return found


def _given(connection: Connection, settings: Settings, recommender: Registered, choice: TestPairs) -> Interactions:
    """Return the pairs of a query or a file, with ids of the recommender's types."""
    if choice.file is not None:
        found = pair_files.read_pairs(choice.file)
        return split_files.build(found, recommender.user_type, recommender.item_type)[0]
    assert choice.query is not None
    query = selects.stripped(choice.query)
    ids = f"SELECT t.user_id::text AS user_id, t.item_id::text AS item_id FROM (\n{query}\n) t"  # noqa: S608
    try:
        for text in (query, ids):
            selects.columns_of(connection, text, SourceInvalid, "what it reads")
    except SourceInvalid as error:
        raise InvalidInput(
            f"The test query cannot be read: {error.reason}. It is a SELECT of user_id and item_id; try it in psql first."
        ) from None
    with reading_application(connection, settings.source_timeout):
        rows = connection.execute(ids).fetchall()
    pairs = [(row["user_id"], row["item_id"]) for row in rows if None not in row.values()]
    return split_files.from_rows(pairs, recommender.user_type, recommender.item_type, "The test query")


def titles_of(connection: Connection, recommender: Registered, reporter: Reporter) -> Titles:
    """Return a reader of the recommender's titles. It finds none where they cannot be read: no reason to lose the metrics."""

    def titles(ids: list[Any]) -> dict[Any, str]:
        try:
            return questions.titles_of(connection, recommender, ids)
        except psycopg.DatabaseError as error:
            reporter.warn(f"The titles cannot be read: {one_line(error)}.")
            return {}

    return titles
