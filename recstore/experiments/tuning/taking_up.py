"""Which study a call of `tune` means: a new one, or one that was begun before."""

from dataclasses import dataclass

from recstore.errors import InvalidInput, NothingToResume, StudyNotFound
from recstore.evaluation.splits import SplitChoice
from recstore.experiments.evaluate import TestPairs
from recstore.experiments.tuning import studies, work
from recstore.experiments.tuning.search import Options
from recstore.postgres.connection import Connection
from recstore.sql.objects import Registered


@dataclass(frozen=True)
class TakenUp:
    """The study that goes on (None: a new one begins); after so many trials, where it was found as the one that asked for the
    same; or which of those was stopped."""

    study: int | None
    trials: int | None = None
    stopped: int | None = None


def check(
    *,
    resume: bool = False,
    new: bool = False,
    study: int | None = None,
    stop: bool = False,
    background: bool = False,
    parallel: int | None = None,
    adopt: bool = False,
    resize: bool = False,
    report: bool = False,
) -> None:
    """Raises InvalidInput for what does not go together."""
    if sum((resume, new, study is not None)) > 1:
        raise InvalidInput("Give one of --resume, --new and --study.")
    if parallel is not None and not background:
        raise InvalidInput("--parallel says how many trials the workers run at once: it goes with --background.")
    if background and (adopt or report):
        raise InvalidInput(
            "Adopt and report when it has ended: recstore tune NAME --study N --adopt --report FILE.html"
        )
    if resize and not adopt:
        raise InvalidInput("--resize makes room for what is adopted: it goes with --adopt.")
    if stop and (resume or new or background):
        raise InvalidInput("--stop goes with no other option but --study.")


def take_up(
    opened: Connection,
    recommender: Registered,
    options: Options,
    choice: SplitChoice | TestPairs,
    *,
    resume: bool = False,
    new: bool = False,
    study: int | None = None,
) -> TakenUp:
    """`study`, if it is given; else the newest unfinished one that was asked for the same, or with `resume` whatever it was
    asked for; with `new` that one is stopped. Raises StudyNotFound, NothingToResume."""
    if study is not None:
        _check_owner(opened, recommender, study)
        return TakenUp(study)
    row = work.unfinished(opened, recommender, None if resume else work.asked(options, choice))
    if row is None:
        if resume:
            raise NothingToResume(name=recommender.name)
        return TakenUp(None)
    number = int(row["study"])
    if new:
        return TakenUp(None, stopped=number if work.stop(opened, number) else None)
    return TakenUp(number, sum(trial.finished for trial in studies.trials(opened, number)))


def stop(opened: Connection, recommender: Registered, study: int | None = None) -> list[int]:
    """Ends this study, or the recommender's unfinished ones, with the best so far; returns those it ended. Raises
    StudyNotFound."""
    if study is not None:
        _check_owner(opened, recommender, study)
    numbers = [row["study"] for row in studies.unfinished(opened, recommender.id)] if study is None else [study]
    return [number for number in numbers if work.stop(opened, number)]


def _check_owner(opened: Connection, recommender: Registered, study: int) -> None:
    if studies.get(opened, study).recommender != recommender.name:
        raise StudyNotFound(study=f"{study} of {recommender.name!r}")
