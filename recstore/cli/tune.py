"""`recstore tune`, the search for good hyperparameters; and `recstore studies`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recstore.api.arguments import Option
from recstore.api.measure import Measuring
from recstore.api.progress import TuneReporter
from recstore.api.rows import Study, Trial, Tuned
from recstore.api.watch import Watching
from recstore.cli.commands import Commands
from recstore.cli.context import state
from recstore.cli.history import of_whom
from recstore.cli.measure import show_evaluation, show_written
from recstore.cli.screen import rounded, say, table, when
from recstore.errors import TuningInterrupted
from recstore.wording import counted, duration

if TYPE_CHECKING:
    from recstore.experiments.tuning.work import Resumed


def register(app: typer.Typer) -> None:
    Commands(app, Measuring).add(
        "tune",
        _shown,
        call=_tune,
        data=_data,
        notes="Ctrl-C stops it, the same command goes on. Retrains go on meanwhile.",
        example="recstore tune retail --adopt",
    )
    Commands(app, Watching).add("studies", _studies, call=_look, data=_studies_data, example="recstore studies retail")


def _tune(
    part: Measuring,
    name: str,
    arguments: dict[str, Any],
    stop: Annotated[bool, Option("End the recommender's unfinished studies with the best so far.")] = False,
) -> Tuned | list[int]:
    if stop:
        from recstore.experiments.tuning import work

        work.check(stop=True, **{key: arguments[key] for key in ("resume", "new", "background")})
        return part.stop_tuning(name, arguments.get("study"))
    reporter, study = TuneReporter(state.errors), None

    def begins(found: "Resumed") -> None:
        nonlocal study
        study = found.study
        if found.stopped is not None:
            say(f"study {found.stopped}, which asked for the same, is stopped")
        if found.trials is not None:
            say(f"study {study} of {name} goes on: {found.trials} trials so far (--new begins again)")
        reporter.metric = Watching(part.settings).study(name, found.study or 0).metric

    try:
        with reporter.showing():
            return part.tune(**arguments, reporter=reporter, watch=reporter, begins=begins)
    except KeyboardInterrupt:
        if study is None:
            raise
        raise TuningInterrupted(name=name, study=study) from None


def _data(found: Tuned | list[int], parallel: int | None) -> Any:
    if isinstance(found, list):
        return {"stopped": found}
    if found.found is None:
        return {"study": found.study, "parallel": parallel or 1}
    summary: dict[str, Any] = {"state": found.state, "outcome": found.outcome, "adopted": found.adopted}
    from recstore.experiments.report.trial_rows import edges

    winner = found.found.winner
    summary |= {"winner": winner.parameters | {"iterations": winner.iterations}, "edges": edges(found.found)}
    return summary | found.found.as_dict()


def _shown(
    found: Tuned | list[int], name: str, parallel: int | None, report: Path | None, pictures: Path | None
) -> None:
    from recstore.experiments.report.trial_rows import edges
    from recstore.experiments.tuning.space import words

    if isinstance(found, list):
        for number in found:
            say(f"study {number} is stopped; to adopt its best: recstore tune {name} --study {number} --adopt")
        if not found:
            say("nothing to stop")
        return
    number, search = found.study, found.found
    if search is None:
        say(f"study {number} of {name}: the workers run {counted(parallel or 1, 'trial')} at once")
        say(f"watch it: recstore studies {name} {number}\nstop it: recstore tune {name} --stop")
        return
    if search.evaluation:
        show_evaluation(search.evaluation)
        say("")
    if found.outcome:
        say(f"study {number}: {found.outcome}")
    say(f"best: {words(search.winner.parameters, search.winner.iterations)}")
    for sentence in edges(search):
        say(sentence)
    if found.altered:
        say(f"altered {name}; the next training uses it: recstore retrain {name}")
    elif found.adopted:
        say(f"{name} has these settings already")
    else:
        say(f"to use it: recstore tune {name} --study {number} --adopt")
    show_written(report, pictures)


def _look(
    part: Watching, name: str | None, study: int | None, n: int
) -> tuple[Study | None, list[Study] | list[Trial]]:
    if study is None:
        return None, part.studies(name, n=n)
    return part.study(name or "", study), part.studies(name or "", study)


def _studies_data(found: tuple[Study | None, Sequence[Study | Trial]]) -> Any:
    study, rows = found
    return vars(study) | {"trials": rows} if study else rows


def _studies(found: tuple[Study | None, Sequence[Any]], name: str | None) -> None:
    from recstore.experiments.tuning.space import words

    study, rows = found
    if study:
        _trials(study, rows)
        return
    shown = [
        {"study": row.study, **of_whom(row, name), "state": row.state, "began": when(row.created_at)}
        | {"trials": row.trials, "took": duration(row.seconds), "at work": row.at_work, "metric": row.metric}
        | {"best": rounded(row.best_value, 4), "settings": words(row.best_parameters or {}, row.best_iterations)}
        for row in rows
    ]
    table(shown, "No search was begun yet. Begin with: recstore tune " + (name or "NAME"))


def _trials(study: Study, rows: Sequence[Trial]) -> None:
    from recstore.experiments.tuning.space import words

    shown = [
        {
            "trial": row.number,
            "stage": row.stage,
            "state": row.state,
            "took": "" if row.seconds is None else duration(row.seconds),
            study.metric: rounded(row.value, 5),
            "settings": words(row.parameters, row.iterations) + (f"; {row.error}" if row.error else ""),
        }
        for row in rows
    ]
    table(shown, "No trial was begun yet.")
    say(f"\nsplit {study.split}")
    if study.state == "running" and not study.at_work:
        say(f"no process is working on it; to go on: recstore tune {study.recommender} --study {study.study}")
    if study.outcome:
        say(study.outcome)
