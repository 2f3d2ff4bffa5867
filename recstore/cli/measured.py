"""What `evaluate` and `benchmark` have in common at the command line: options, the tables, the report."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from recstore.cli import completion
from recstore.cli.context import say, show_rows, state
from recstore.errors import InvalidInput
from recstore.evaluation.results import CurvePoint, Evaluation, ModelResult
from recstore.experiments.tuning.trials import SearchResult

METRICS = """\
Metrics, means over the users who have both a training and a test pair, of lists of k: precision = hits / k; recall = hits /
held-out items; ndcg = gain of the hits, each 1 / log2(place + 1), over the best possible with min(k, held-out) hits; map =
mean of the precision at each hit, over min(k, held-out); hit rate = share of users with a hit; coverage = share of all items
that anybody is recommended; mean popularity = training users of a recommended item. Over all items: auc = share of pairs of a
held-out and another item that are ordered rightly; mse = mean squared error of the predicted preference, 1 for the user's own
items and 0 for others.\
""".replace("\n", " ")
"""The end of the help, a paragraph that is wrapped to the terminal."""

Ks = Annotated[str, typer.Option("--k", "-k", help="Lengths of the lists.", metavar="K,K,..")]
Users = Annotated[
    str | None, typer.Option(help="Measure a sample: so many users, or a share of them.", metavar="N|SHARE%")
]
IncludeSeen = Annotated[
    bool, typer.Option("--include-seen", help="Rank the items of the training part, too, as some published tables do.")
]
Curve = Annotated[
    int,
    typer.Option(help="Metrics after every so many iterations, on train and validation; 0: none.", metavar="N", min=0),
]
SearchPlan = Annotated[
    str,
    typer.Option(
        help="How SQL finds the nearest items.",
        metavar="auto|exact|hnsw",
        autocompletion=completion.choosing("auto", "exact", "hnsw"),
    ),
]
Report = Annotated[Path | None, typer.Option(help="Write a report, one self-contained page.", metavar="FILE.html")]
Pictures = Annotated[Path | None, typer.Option(help="Write the pictures, too, as PNG.", metavar="FOLDER")]
Device = Annotated[
    str | None,
    typer.Option(
        help="auto, cpu or gpu.", metavar="auto|cpu|gpu", autocompletion=completion.choosing("auto", "cpu", "gpu")
    ),
]
Threads = Annotated[int | None, typer.Option(help="Threads; 0: all cores.", metavar="N")]
SplitSeed = Annotated[int, typer.Option(help="Of the split and of every sample.", metavar="N", min=0)]


def parsed_ks(text: str) -> tuple[int, ...]:
    """ "10,20" as (10, 20). Raises InvalidInput."""
    parts = [part for part in re.split(r"[,\s]+", text.strip()) if part]
    if not parts or not all(re.fullmatch(r"[0-9]{1,6}", part) and int(part) for part in parts):
        raise InvalidInput(f"--k is {text!r}: write the lengths of the lists as whole numbers, for instance 10,20.")
    return tuple(sorted({int(part) for part in parts}))


def parsed_users(text: str | None) -> int | float | None:
    """ "1000" as 1000, "10%" as 0.1. Raises InvalidInput."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(%?)\s*", text)
    if match and match[2] and 0 < float(match[1]) <= 100:
        return float(match[1]) / 100
    if match and not match[2] and match[1].isdigit() and int(match[1]):
        return int(match[1])
    raise InvalidInput(f"--users is {text!r}: write how many, for instance 1000, or a share of them, for instance 10%.")


def write_report(evaluation: Evaluation | SearchResult, report: Path | None, pictures: Path | None) -> None:
    """The page and the pictures that were asked for."""
    if report is not None:
        from recstore.experiments.report import page  # matplotlib takes a second

        files = page.write(report, evaluation, pictures)
        say("\n" + "\n".join(f"written: {file}" for file in files))


def show_evaluation(evaluation: Evaluation) -> None:
    """The split in a sentence, a table for each k, the curve, and what to mind."""
    say(f"split {evaluation.split}")
    say(
        f"{evaluation.train_pairs:,} training and {evaluation.test_pairs:,} test pairs;"
        f" {evaluation.users:,} users, {evaluation.evaluated_users:,} of them measured; {evaluation.items:,} items"
    )
    names = list(evaluation.results[0].metrics)
    ks = sorted({int(name.partition("@")[2]) for name in names if "@" in name})
    for k in ks:
        say("")
        show_rows([_row(result, f"at {k}", f"@{k}", names) for result in evaluation.results])
    say("")
    overall = "over all items"
    show_rows(
        [_row(r, overall, "", names) | {"seconds of training": _rounded(r.seconds, 2)} for r in evaluation.results]
    )
    if evaluation.curve:
        say("")
        show_rows([_point(point) for point in evaluation.curve])
    for sentence in evaluation.warnings:
        state.errors.print(f"Warning: {sentence}", markup=False)


def _row(result: ModelResult, head: str, end: str, names: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {head: result.name}
    for name in names:
        short, at, k = name.partition("@")
        if at + k == end:
            row[short] = _rounded(result.metrics.get(name), 1 if short == "mean_popularity" else 4)
    return row


def _point(point: CurvePoint) -> dict[str, Any]:
    row: dict[str, Any] = {"iteration": point.iteration}
    for part in ("train", "validation"):
        for name, value in getattr(point, part).items():
            if name.startswith(("recall@", "ndcg@")):
                row[f"{part} {name}"] = _rounded(value, 4)
    return row | {"seconds": _rounded(point.seconds, 1)}


def _rounded(value: float | None, digits: int) -> Decimal | None:
    return None if value is None else Decimal(f"{value:.{digits}f}")
