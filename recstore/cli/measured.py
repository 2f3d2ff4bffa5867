"""A measurement on the screen: its tables, and the files of its report."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recstore.cli.context import state
from recstore.cli.screen import rounded, say, table, warn

if TYPE_CHECKING:
    from recstore.evaluation.results import CurvePoint, Evaluation, ModelResult


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


def _point(point: "CurvePoint") -> dict[str, Any]:
    row: dict[str, Any] = {"iteration": point.iteration}
    for part in ("train", "validation"):
        for name, value in getattr(point, part).items():
            if name.startswith(("recall@", "ndcg@")):
                row[f"{part} {name}"] = rounded(value, 4)
    return row | {"seconds": rounded(point.seconds, 1)}
