"""A published split, as files: the composition root of `recstore benchmark`.

    files -> split -> (a search) -> measure, through NumPy and through a scratch recommender

What is printed is comparable with a published table of the same split, k and treatment of training items.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from recstore.config import Settings
from recstore.definition import Definition
from recstore.errors import InvalidInput
from recstore.evaluation import split_files, splits
from recstore.evaluation.pair_files import Format
from recstore.evaluation.results import Evaluation
from recstore.experiments.measure import Store, Wanted, described, measure
from recstore.experiments.scratch import check_name
from recstore.experiments.steps import Steps
from recstore.experiments.tuning.search import Options, Watch, search, tuned, winner_of
from recstore.experiments.tuning.space import words
from recstore.model import trainers
from recstore.postgres.connection import connect, plain_errors
from recstore.runs import Reporter, Silent
from recstore.sql.schema_revision import require_current

UNTRIED = ("source", "candidates", "filters", "publication", "gate", "schedule", "lists")
"""Sections of a definition that a benchmark has no use for."""


@dataclass(frozen=True)
class Files:
    """Where the split is: see `split_files.read_split`."""

    train: Path
    test: Path
    negatives: Path | None = None
    format: Format = "auto"
    values: bool = True

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            raise InvalidInput(f"--format is {self.format!r}: choose one of {', '.join(get_args(Format))}.")


@dataclass(frozen=True)
class Benchmark:
    """What came out, and what each step took: its name, `seconds`, and what it did."""

    evaluation: Evaluation
    steps: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return self.evaluation.as_dict() | {"steps": self.steps}


def benchmark(
    url: str | None,
    settings: Settings,
    files: Files,
    definition: Definition,
    wanted: Wanted,
    *,
    tune: Options | None = None,
    watch: Watch | None = None,
    keep: str | None = None,
    reporter: Reporter | None = None,
) -> Benchmark:
    """Reads a split, trains on its training part with the definition's confidence and hyperparameters, or with those that
    a search finds from there (`tune`, on a validation part of the training part; `watch` looks on), and measures its test
    part.

    Users without a training pair are not measured, test pairs that are training pairs too are dropped (both are told);
    items that only the test part has count as held out and can not be found. With `wanted.through_sql` a scratch
    recommender is made in the database at `url`, and removed unless it is to `keep` a name. Raises RecstoreError.
    """
    if keep is not None and not wanted.through_sql:
        raise InvalidInput("--keep needs the store: leave out --no-sql.")
    steps = Steps(reporter or Silent())
    taken_at = datetime.now(UTC).isoformat(timespec="seconds")
    trainers.trainer(definition.hyperparameters.trainer)  # a wrong name is said before anything is read
    if wanted.through_sql:
        assert url is not None
        with connect(url, "recstore:benchmark") as connection, plain_errors("looking at the database", connection):
            require_current(connection)  # all that can be wrong there is said before an hour of training
            check_name(connection, keep)
    with steps.step("read") as details:
        found = split_files.read_split(
            files.train, files.test, files.negatives, format=files.format, values=files.values
        )
        split = splits.given(found.train, found.test, wanted.seed, validation=wanted.curve > 0 or tune is not None)
        negatives = None
        if found.negatives is not None:
            ids = split.train.users, split.train.items
            negatives = split_files.matrix(found.negatives, *ids, found.user_type, found.item_type)
        details |= {
            "files": list(found.sentences),
            "told": f"{len(split.train):,} training and {len(split.test):,} test pairs",
        }
    if tune is not None:
        with steps.step("tune") as details:
            winner = winner_of(search(split, definition, tune, settings, watch=watch).trials)
            definition = tuned(definition, winner)
            details |= {"parameters": winner.parameters, "told": words(winner.parameters, winner.iterations)}
    measured = measure(
        split,
        definition,
        wanted,
        steps,
        settings,
        name=definition.hyperparameters.trainer,
        negatives=negatives,
        store=Store(url, found.user_type, found.item_type, keep=keep) if url else None,
    )
    name = keep or files.train.name.split(".")[0]
    return Benchmark(described(name, split, wanted, measured, [], taken_at), steps.taken)
