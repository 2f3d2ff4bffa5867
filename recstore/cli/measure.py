"""Quality of a recommender: evaluate, benchmark."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from recstore.api.measure import Measuring
from recstore.cli.commands import Commands
from recstore.cli.measured import show_evaluation, show_written
from recstore.cli.screen import say, table
from recstore.cli.tune import TuneReporter

if TYPE_CHECKING:
    from recstore.evaluation.results import Evaluation
    from recstore.experiments.benchmark import Benchmark

METRICS = """\
Metrics, means over the users who have both a training and a test pair, of lists of k: precision = hits / k; recall = hits /
held-out items; ndcg = gain of the hits, each 1 / log2(place + 1), over the best possible with min(k, held-out) hits; map =
mean of the precision at each hit, over min(k, held-out); hit rate = share of users with a hit; coverage = share of all items
recommended to any user; mean popularity = training users of a recommended item. Over all items: auc = share of pairs of a
held-out and another item that are ordered rightly; mse = mean squared error of the predicted preference, 1 for the user's own
items and 0 for others.\
""".replace("\n", " ")
"""End of the help, a paragraph that is wrapped to the terminal."""


def register(app: typer.Typer) -> None:
    commands = Commands(app, Measuring)
    commands.add(
        "evaluate",
        _evaluated,
        notes="Settings on the command line replace the recommender's own.",
        example="recstore evaluate retail --factors 256 --curve 1",
        epilog=METRICS,
    )
    commands.add(
        "benchmark",
        _benchmarked,
        reporter=TuneReporter,
        notes="""\
Files are pairs (user,item[,count], with or without a header; commas, tabs, blanks or ::) or lines "user item item ..";
plain or compressed.""",
        example="recstore benchmark --train train.txt --test test.txt --factors 256",
        epilog=METRICS,
    )


def _evaluated(found: "Evaluation", report: Path | None, pictures: Path | None) -> None:
    show_evaluation(found)
    show_written(report, pictures)


def _benchmarked(found: "Benchmark", keep: str | None, report: Path | None, pictures: Path | None) -> None:
    say("")
    for sentence in found.steps[0]["files"]:
        say(sentence)
    show_evaluation(found.evaluation)
    say("")
    steps = [{"step": each["step"], "seconds": each["seconds"], "": each.get("told", "")} for each in found.steps]
    table(steps)
    show_written(report, pictures)
    if keep:
        say(
            f"\nkept {keep}, over the table {keep}_data.pairs. To remove both: recstore drop {keep}, then DROP SCHEMA"
            f" {keep}_data CASCADE"
        )
