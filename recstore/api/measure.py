"""How good a recommender is, and better settings: evaluate, tune, studies, benchmark."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from recstore import registry
from recstore.api import options
from recstore.api.base import Part, check_publications, definition_of
from recstore.api.rows import Study, Trial, Tuned
from recstore.atomic import check_report
from recstore.background import watching
from recstore.definition import Search as SearchPlan
from recstore.errors import InvalidInput
from recstore.evaluation.pair_files import Format
from recstore.evaluation.results import Evaluation
from recstore.evaluation.splits import SEED
from recstore.experiments import benchmark as benchmarking
from recstore.experiments import evaluate as evaluating
from recstore.experiments.measure import Wanted
from recstore.experiments.tuning import studies as stored
from recstore.experiments.tuning import work
from recstore.experiments.tuning.options import Options
from recstore.experiments.tuning.search import Watch
from recstore.experiments.tuning.trials import SearchResult
from recstore.runs import Reporter

By = Literal["time", "user", "share"]
File = str | Path


class Measuring(Part):
    """Measurements; but for `tune(adopt=True)` they change no recommender."""

    def evaluate(
        self,
        name: str,
        *,
        split: By | None = None,
        share: float | None = None,
        items: int | None = None,
        split_seed: int = SEED,
        test_query: str | None = None,
        test_file: File | None = None,
        k: Sequence[int] = (10, 20),
        users: int | float | None = None,
        include_seen: bool = False,
        negatives: int = 0,
        curve: int = 0,
        sql: bool = False,
        search: SearchPlan = "auto",
        report: File | None = None,
        pictures: File | None = None,
        device: str | None = None,
        threads: int | None = None,
        yes: bool = False,
        reporter: Reporter | None = None,
        **settings: Any,
    ) -> Evaluation:
        """Measures a recommender on pairs held out of its training, beside popularity and item-kNN. `settings` (`factors`,
        `alpha`, ..) are tried instead of its own. `share` is 0.2 for 20 %; `users` a number, or a share below 1; `report` an
        HTML file to write. Raises SplitImpossible, TimesMissing, InvalidInput, .."""
        lengths = tuple(sorted(set(k)))
        wanted = Wanted(lengths, users, include_seen, negatives, curve, sql, search, split_seed)
        choice = evaluating.chosen_part(split, share, items, split_seed, test_query, _path(test_file))
        check_report(_path(report), _path(pictures))
        options.by_section(settings, without=evaluating.UNTRIED)
        with self._current() as opened:
            recommender = registry.get(opened, name)
            definition = definition_of(name, recommender.definition, None, None, None, settings)
            if sql:
                check_publications(opened, yes)
        own = self._settings(device=device, threads=threads)
        found = evaluating.evaluate(self.url, own, name, wanted, choice, definition=definition, reporter=reporter)
        _write(found, report, pictures)
        return found

    def tune(
        self,
        name: str,
        *,
        metric: str = Options.metric,
        trials: int | None = None,
        time: float = Options.SECONDS,
        trainer: Sequence[str] = (),
        max_factors: int | None = None,
        space: Mapping[str, Any] | None = None,
        grid: Mapping[str, Sequence[Any]] | None = None,
        max_iterations: int = Options.most_iterations,
        users: int = Options.users,
        split: By | None = None,
        share: float | None = None,
        items: int | None = None,
        seed: int = SEED,
        test_query: str | None = None,
        test_file: File | None = None,
        resume: bool = False,
        new: bool = False,
        study: int | None = None,
        background: bool = False,
        parallel: int | None = None,
        adopt: bool = False,
        resize: bool = False,
        report: File | None = None,
        pictures: File | None = None,
        device: str | None = None,
        threads: int | None = None,
        reporter: Reporter | None = None,
        watch: Watch | None = None,
    ) -> Tuned:
        """Searches for good hyperparameters on a validation part, then measures the best, once, on a test part. Called again
        with the same it goes on where it was. `space` narrows the search, `grid` has lists of values instead; with
        `background` the workers do it, and it returns at once. `watch` is told of each trial. Raises StudyEmpty,
        StudyNotFound, NothingToResume, InvalidInput, .."""
        work.check(
            resume=resume, new=new, study=study, background=background, parallel=parallel, adopt=adopt, resize=resize,
            report=report is not None,
        )  # fmt: skip
        check_report(_path(report), _path(pictures))
        own = self._settings(device=device, threads=threads)
        asked = Options(
            metric=metric,
            trials=trials,
            seconds=time,
            trainers=tuple(trainer),
            max_factors=max_factors,
            space=space or {},
            grid={key: [str(value) for value in values] for key, values in (grid or {}).items()},
            most_iterations=max_iterations,
            users=users,
            seed=seed,
        )
        choice = evaluating.chosen_part(split, share, items, seed, test_query, _path(test_file))
        with self._current() as opened:
            recommender = registry.get(opened, name)
            number = work.resumed(opened, recommender, asked, choice, resume=resume, new=new, study=study).study
            if number is not None and background:
                stored.set_parallel(opened, number, parallel or 1)
        if number is None:
            at_once = parallel or int(background)
            number = work.begin(self.url, own, name, asked, choice, parallel=at_once, reporter=reporter)
        if background:
            return self._left_to_workers(number, reporter)
        work.work(self.url, own, number, watch=watch, reporter=reporter)
        with self._current() as opened:
            known, found = stored.get(opened, number), work.result(opened, number)
        if adopt:
            work.adopt(self.url, own, number, resize=resize, reporter=reporter)
        _write(found, report, pictures)
        return Tuned(number, known.state, known.outcome, adopt, found)

    def _left_to_workers(self, number: int, reporter: Reporter | None) -> Tuned:
        with self._current() as opened:
            warning = watching.nobody_dispatches(opened, self.settings)
            known = stored.get(opened, number)
        if warning and reporter:
            reporter.warn(warning)
        return Tuned(number, known.state, known.outcome, False, None)

    def stop_tuning(self, name: str, study: int | None = None) -> list[int]:
        """Ends this study, or the recommender's unfinished ones, with the best so far; returns those it ended."""
        with self._current() as opened:
            return work.stop_all(opened, registry.get(opened, name), study)

    @overload
    def studies(self, name: str | None = None, *, n: int = 20) -> list[Study]: ...

    @overload
    def studies(self, name: str, study: int) -> list[Trial]: ...

    def studies(self, name: str | None = None, study: int | None = None, n: int = 20) -> list[Study] | list[Trial]:
        """The newest n searches, of this recommender or of all, the newest last; or the trials of one. Raises
        RecommenderNotFound, StudyNotFound."""
        with self._watching() as opened:
            if study is not None:
                return [Trial.of(row) for row in watching.study(opened, name, study)[1]]
            return [Study.of(row) for row in watching.studies(opened, name, n=n)]

    def benchmark(
        self,
        train: File,
        test: File,
        *,
        negatives: File | None = None,
        format: Format = "auto",
        values: bool = True,
        k: Sequence[int] = (10, 20),
        users: int | float | None = None,
        include_seen: bool = False,
        curve: int = 0,
        tune: bool = False,
        trials: int | None = None,
        time: float = Options.SECONDS,
        sql: bool = True,
        search: SearchPlan = "auto",
        split_seed: int = SEED,
        keep: str | None = None,
        report: File | None = None,
        pictures: File | None = None,
        device: str | None = None,
        threads: int | None = None,
        yes: bool = False,
        reporter: Reporter | None = None,
        watch: Watch | None = None,
        **settings: Any,
    ) -> benchmarking.Benchmark:
        """Trains on a published split, two files of pairs, and measures it through NumPy and, unless `sql` is False, through a
        scratch recommender, which is removed unless it is to `keep` a name. Raises InvalidInput, .."""
        if trials is not None and not tune:
            raise InvalidInput("--trials goes with --tune.")
        lengths = tuple(sorted(set(k)))
        wanted = Wanted(lengths, users, include_seen, 0, curve, sql, search, split_seed)
        check_report(_path(report), _path(pictures))
        files = benchmarking.Files(Path(train), Path(test), _path(negatives), format, values)
        given = options.by_section(settings, without=benchmarking.UNTRIED)
        definition = options.merge({"source": {"table": "none"}}, given, None)
        if sql:
            with self._current() as opened:
                check_publications(opened, yes)
        found = benchmarking.benchmark(
            self.url if sql else None,
            self._settings(device=device, threads=threads),
            files,
            definition,
            wanted,
            tune=Options(trials=trials, seconds=time, seed=split_seed) if tune else None,
            watch=watch,
            keep=keep,
            reporter=reporter,
        )
        _write(found.evaluation, report, pictures)
        return found


def _path(file: File | None) -> Path | None:
    return None if file is None else Path(file)


def _write(found: Evaluation | SearchResult, report: File | None, pictures: File | None) -> None:
    if report is not None:
        from recstore.experiments.report import page  # matplotlib takes a second

        page.write(Path(report), found, _path(pictures))
