"""Measure a published split, given as files.

    files -> split -> (a search) -> measure, through NumPy and through a scratch recommender

The printed metrics are comparable with a published table of the same split, k and treatment of training items.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from recstore.config import Settings
from recstore.definition import Definition
from recstore.errors import InvalidInput
from recstore.evaluation import splits
from recstore.evaluation.results import Evaluation
from recstore.experiments.experiment import Experiment
from recstore.experiments.measurement import Measurement, measure
from recstore.experiments.report.trial_rows import edges
from recstore.experiments.scratch import Store, check_name
from recstore.experiments.tuning.search import Search, Watch, tuned, winner_of
from recstore.experiments.tuning.search_options import Options
from recstore.experiments.tuning.space import words
from recstore.experiments.tuning.trials import SearchResult
from recstore.files import split_files
from recstore.files.pair_files import Format
from recstore.model import trainers
from recstore.postgres.connection import connect, plain_errors
from recstore.runs import Reporter, Silent
from recstore.sql.schema_revision import require_current


@dataclass(frozen=True)
class Files:
    """The files of a split; see `split_files.read_split`."""

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
    """The evaluation, and each step with its name, its `seconds` and its details."""

    evaluation: Evaluation
    steps: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return self.evaluation.as_dict() | {"steps": self.steps}


def benchmark(
    url: str | None,
    settings: Settings,
    files: Files,
    definition: Definition,
    wanted: Measurement,
    *,
    tune: Options | None = None,
    watch: Watch | None = None,
    keep: str | None = None,
    reporter: Reporter | None = None,
) -> Benchmark:
    """Read a split, train on its training part, and measure its test part.

    Trains with the definition's confidence and hyperparameters, or with those that a search finds from there (`tune`, on a
    validation part of the training part; `watch` follows it). Users without a training pair are not measured, and test
    pairs that are training pairs too are dropped; warnings count both. Items that only the test part has count as held out
    and cannot be found. With `wanted.through_sql` a scratch recommender is made in the database at `url`, and removed
    unless it is to `keep` a name. Raises RecstoreError.
    """
    if keep is not None and not wanted.through_sql:
        raise InvalidInput("--keep needs the store: leave out --no-sql.")
    experiment = Experiment(settings, reporter or Silent())
    trainers.trainer(definition.hyperparameters.trainer)  # a wrong name is reported before anything is read
    if wanted.through_sql:
        assert url is not None
        with connect(url, "recstore:benchmark") as connection, plain_errors("looking at the database", connection):
            require_current(connection)  # what can be wrong there is reported before an hour of training
            if keep is not None:
                check_name(connection, keep)
    with experiment.step("read") as details:
        found = split_files.read_split(
            files.train,
            files.test,
            files.negatives,
            format=files.format,
            values=files.values,
            ratings=definition.source.explicit,
        )
        split = splits.given(found.train, found.test, wanted.seed, validation=wanted.curve > 0 or tune is not None)
        negatives = None
        if found.negatives is not None:
            ids = split.train.users, split.train.items
            negatives = split_files.matrix(found.negatives, *ids, found.user_type, found.item_type)
        summary = f"{len(split.train):,} training and {len(split.test):,} test pairs"
        details |= {"files": list(found.sentences), "told": summary}
    if tune is not None:
        with experiment.step("tune") as details:
            search = Search(split, definition, tune)
            trials = search.run_all(Experiment(settings), watch)
            winner, scales = winner_of(trials), search.scales()
            name, how = files.train.name, split.how
            result = SearchResult(
                0, name, tune.metric, how, "optuna", scales, trials, winner.number, None, "ended", None
            )
            definition = tuned(definition, winner)
            sentences = [words(winner.parameters, winner.iterations), *edges(result)]
            details |= {"parameters": winner.parameters, "told": "; ".join(sentences)}
    evaluation = measure(
        experiment,
        split,
        definition,
        wanted,
        name=keep or files.train.name.split(".")[0],
        model=definition.hyperparameters.trainer,
        negatives=negatives,
        store=Store(url, found.user_type, found.item_type, keep=keep) if url else None,
    )
    return Benchmark(evaluation, experiment.steps)
