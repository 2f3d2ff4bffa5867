"""Compare the default budget of a search with one ten times as long, on generated interactions of two densities or on files of
a split: both winners, their metrics on the test part, and the ratio.

    python benchmarks/tuning.py sparse dense
    python benchmarks/tuning.py train.csv:test.csv --metric recall@20
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from measured import Measured

from recstore.config import Settings
from recstore.definition import Definition, Source
from recstore.evaluation import splits
from recstore.evaluation.splits import Split
from recstore.experiments.experiment import Experiment
from recstore.experiments.tuning.search import PRESENT, Search, Watch, winner_of
from recstore.experiments.tuning.search_options import Options
from recstore.experiments.tuning.space import words
from recstore.experiments.tuning.stages import Plan
from recstore.experiments.tuning.trials import TrialResult
from recstore.files import split_files
from recstore.model.interactions import IdMap, Interactions

SHAPES = {"sparse": (8_000, 6_000, 16, 80), "dense": (1_500, 600, 60, 12)}
"""Users, items, items per user, tastes."""


def generated(users: int, items: int, per_user: int, tastes: int, seed: int = 1) -> Interactions:
    """Generate interactions: every item belongs to a few tastes and every user has a few, both drawn from a Dirichlet
    distribution. Within a taste popularity falls with an item's rank r as 1 / r; a fifth of the views is of anything
    popular. Counts are geometric."""
    random = np.random.default_rng(seed)
    belongs = random.dirichlet(np.full(tastes, 0.05), items).T  # (tastes, items)
    belongs *= 1 / (1 + random.permutation(items))
    belongs /= belongs.sum(axis=1, keepdims=True)
    popular = 1 / (1 + np.arange(items)) ** 0.8
    popular /= popular.sum()
    rows = []
    for user in range(users):
        likes = random.dirichlet(np.full(tastes, 0.1)) @ belongs
        chances = 0.8 * likes + 0.2 * popular
        number = min(items // 2, 4 + random.geometric(1 / (per_user - 4)))
        chosen = random.choice(items, number, replace=False, p=chances / chances.sum())
        rows.append(np.column_stack((np.full(number, user), np.sort(chosen), random.geometric(0.5, number))))
    table = np.concatenate(rows)
    seen = np.unique(table[:, 1])
    return Interactions(
        IdMap(pa.array(range(users), pa.int64())),
        IdMap(pa.array(seen, pa.int64())),
        table[:, 0].astype(np.int32),
        np.searchsorted(seen, table[:, 1]).astype(np.int32),
        table[:, 2].astype(np.float64),
    )


def split_of(name: str) -> Split:
    """Return the split of a generated shape, or of two files TRAIN:TEST."""
    if name in SHAPES:
        return splits.by_user(generated(*SHAPES[name]), validation=True)
    train, _, test = name.partition(":")
    found = split_files.read_split(Path(train), Path(test))
    return splits.given(found.train, found.test, validation=True)


class Lines(Watch):
    """Prints a line for each trial."""

    def ends(self, trial: TrialResult, _plan: Plan, _trials: Sequence[TrialResult]) -> None:
        value = "" if trial.value is None else f"{trial.value:.5f}"
        settings = words(trial.parameters, trial.iterations)
        print(
            f"  {trial.number:4} {trial.stage:8} {trial.state:9} {value:8} {trial.seconds:7.1f} s  {settings}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(SHAPES), help="sparse, dense, or TRAIN:TEST")
    parser.add_argument("--metric", default="ndcg@20")
    parser.add_argument("--max-factors", type=int)
    parser.add_argument("--times", type=float, default=10.0)
    arguments = parser.parse_args()
    settings, definition = Settings(), Definition(source=Source(table="none"))
    for name in arguments.sets:
        part = Measured(f"tuning_{Path(name.partition(':')[0]).stem}", times=arguments.times, metric=arguments.metric)
        split = split_of(name)
        density = len(split.train) / len(split.train.users) / len(split.train.items)
        print(
            f"{name}: {len(split.train.users):,} users, {len(split.train.items):,} items, density {density:.4%}; {split.how}"
        )
        base = Options(metric=arguments.metric, max_factors=arguments.max_factors)
        long = replace(base, trials=round(base.TRIALS * arguments.times), seconds=base.seconds * arguments.times)
        reached = {}
        for budget, options in (("default", base), ("long", long)):
            began = time.perf_counter()
            search = Search(split, definition, options)
            found = search.run_all(Experiment(settings), Lines())
            took = time.perf_counter() - began
            winner = winner_of(found)
            evaluation = search.conclude(Experiment(settings), winner, name)
            reached[budget] = evaluation.results[0].metrics[arguments.metric] or 0.0
            part.row(
                "searches",
                set=name,
                budget=budget,
                trials=len(found),
                seconds=took,
                validation=winner.value,
                **{
                    f"{metric}, {'default settings' if result.name == PRESENT else 'winner'}": result.metrics[metric]
                    for metric in ("recall@20", "ndcg@20")
                    for result in evaluation.results
                    if result.name == PRESENT or result is evaluation.results[0]
                },
                winner=words(winner.parameters, winner.iterations),
            )
        level = f"{name}: the default budget reaches 97 % of one {arguments.times:g} times as long"
        part.level("search", level, 97.0, 100 * reached["default"] / reached["long"], "%", least=True)
        part.write()


if __name__ == "__main__":
    main()
