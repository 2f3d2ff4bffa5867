"""Quality of a recommender: evaluate, benchmark."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from recstore.api.measure import Measuring
from recstore.api.progress import TuneReporter
from recstore.cli.commands import Commands
from recstore.cli.context import state
from recstore.cli.screen import rounded, say, table, warn

if TYPE_CHECKING:
    from recstore.evaluation.results import CurvePoint, Evaluation, ModelResult
    from recstore.experiments.benchmark import Benchmark

METRICS = """\
Metrics, means over the users who have both a training and a test pair, of lists of k: precision = hits / k; recall = hits /
held-out items; ndcg = gain of the hits, each 1 / log2(place + 1), over the best possible with min(k, held-out) hits; map =
mean of the precision at each hit, over min(k, held-out); hit rate = share of users with a hit; coverage = share of all items
recommended to any user; mean popularity = training users of a recommended item. Of ratings, a held-out item counts if its rating
is at least the mean of the training, and there are: rmse, mae = root of the mean squared error, mean absolute error; r2 = share
of the variance explained. Over all items: auc = share of pairs of a
held-out and another item that are ordered rightly; mse = mean squared error of the predicted preference, 1 for the user's own
items and 0 for others. The 95 % intervals are of a bootstrap over the users, the same resamples for every model; a
difference whose interval does not contain 0 is more than chance.\
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


def show_written(report: Path | None, pictures: Path | None) -> None:
    """Print the files of a report."""
    if report:
        drawn = sorted(pictures.glob(f"{report.stem}-*.png")) if pictures else []
        say("\n" + "\n".join(f"written: {file}" for file in [report, *drawn]))


def show_evaluation(evaluation: "Evaluation") -> None:
    """Print the split in a sentence, a table for each k, the curve, and warnings."""
    say(f"split {evaluation.split}")
    say(
        f"{evaluation.train_pairs:,} training and {evaluation.test_pairs:,} test pairs;"
        f" {evaluation.users:,} users, {evaluation.evaluated_users:,} of them measured; {evaluation.items:,} items"
    )
    names = list(evaluation.results[0].metrics)
    ks = sorted({int(name.partition("@")[2]) for name in names if "@" in name})
    tables = [[_row(result, f"at {k}", f"@{k}", names) for result in evaluation.results] for k in ks]
    seconds = [{"seconds of training": rounded(result.seconds, 2)} for result in evaluation.results]
    overall = [_row(result, "over all items", "", names) for result in evaluation.results]
    tables.append([row | more for row, more in zip(overall, seconds, strict=True)])
    if evaluation.results[0].intervals:
        shown = [name for name in names if name in ("rmse", f"recall@{ks[-1]}", f"ndcg@{ks[-1]}")]
        tables.append([_limits(result, shown, evaluation.results[0].name) for result in evaluation.results])
    tables += [[_point(point) for point in evaluation.curve]] * bool(evaluation.curve)
    for rows in tables:
        say("")
        table(rows)
    for sentence in () if state.json else evaluation.warnings:
        warn(sentence)


def _row(result: "ModelResult", head: str, end: str, names: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {head: result.name}
    for name in names:
        short, at, k = name.partition("@")
        if at + k == end:
            row[short] = rounded(result.metrics.get(name), 1 if short == "mean_popularity" else 4)
    return row


def _limits(result: "ModelResult", names: list[str], first: str) -> dict[str, Any]:
    row: dict[str, Any] = {"95 % intervals": result.name}
    for head, intervals in (("{}", result.intervals), (f"{first} minus this: {{}}", result.differences)):
        for name in names:
            row[head.format(name)] = " to ".join(f"{round(limit, 4) + 0:.4f}" for limit in intervals.get(name, ()))
    return row


def _point(point: "CurvePoint") -> dict[str, Any]:
    row: dict[str, Any] = {"iteration": point.iteration}
    for part in ("train", "validation"):
        for name, value in getattr(point, part).items():
            if name.startswith(("rmse", "recall@", "ndcg@")):
                row[f"{part} {name}"] = rounded(value, 4)
    return row | {"seconds": rounded(point.seconds, 1)}
