"""Decide whether a generation may go live: the guard of its size and the gate of its quality, for a training and a file."""

from typing import Any

from recstore.definition import Source
from recstore.errors import GateRefused, RecstoreError, SourceShrunk
from recstore.evaluation.gate import Verdict, shrunk
from recstore.evaluation.rating_errors import RMSE
from recstore.model.interactions import SourceReport
from recstore.model.trained import Stored
from recstore.runs import Run
from recstore.sql import queries


def check_source(run: Run, report: SourceReport, force: bool) -> None:
    """Refuse a source that lost most of its rows since the live generation was trained, in case a table is half empty.

    With `force`, or if the definition names another source now, it warns. Raises SourceShrunk.
    """
    live = queries.row(run.connection, "live_size", recommender_id=run.recommender.id)
    if live is None:
        return
    max_fall = run.recommender.definition.gate.max_fall
    counts = {"users": report.users, "items": report.items, "pairs": report.pairs}
    fallen = ", ".join(shrunk(counts, live, max_fall))
    if fallen and force:
        run.warn(f"Published by force although the source has lost most of its rows: {fallen}.")
    elif fallen and Source.model_validate(live["source"]) != run.recommender.definition.source:
        run.warn(f"The source is not the one of generation {live['generation']}, and is smaller: {fallen}.")
    elif fallen:
        raise SourceShrunk(name=run.name, fallen=fallen, generation=live["generation"], most=f"{max_fall:.0%}")


def check_verdict(
    run: Run,
    verdict: Verdict,
    live: Stored | None,
    force: bool,
    refused: type[RecstoreError] = GateRefused,
    **about: Any,
) -> None:
    """Refuse a model that is worse than the live one, unless forced; warn of one that is worse than popularity.

    Raises RecstoreError of class `refused`, with `about` in addition to its data.
    """
    if verdict.popularity and verdict.popularity.worse(0):
        predicts = verdict.popularity.metric == RMSE
        words = "predicts worse than biases alone do" if predicts else "recommends worse than popularity does"
        run.warn(f"It {words}: {verdict.popularity}.")
    if verdict.worse and force:
        run.warn(f"Published by force although it is worse than the live generation: {verdict.live}.")
    elif verdict.worse:
        assert live is not None
        raise refused(
            generation=run.generation.number, name=run.name, comparison=verdict.live,
            tolerance=f"{verdict.tolerance:.0%}", live=live.generation, **about,
        )  # fmt: skip
