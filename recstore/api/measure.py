"""Quality and better settings of a recommender: evaluate, tune, benchmark."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from recstore import registry
from recstore.api import options, texts
from recstore.api.arguments import Device, Name, Option, Sections, Threads, Yes
from recstore.api.base import Part, check_publications, definition_of
from recstore.api.rows import Tuned
from recstore.atomic import check_report
from recstore.background import watching
from recstore.definition import RATINGS
from recstore.definition import Search as SearchPlan
from recstore.errors import InvalidInput
from recstore.runs import Reporter

if TYPE_CHECKING:
    from recstore.evaluation.results import Evaluation
    from recstore.experiments.benchmark import Benchmark
    from recstore.experiments.tuning.trials import SearchResult

WITHOUT = ("source", "candidates", "exclusions", "fallback", "publication", "gate", "schedule", "refresh", "lists")
"""Sections of a definition that no measurement reads."""

SECONDS = 2700.0
"""Default limit of a search in seconds."""

File = Path | str

Split = Annotated[
    Literal["time", "user", "share"] | None,
    Option(
        "Held-out part: the newest pairs, some items of each user, or a share of the pairs at random. Unset: by time if the"
        " source has one, else by user."
    ),
]
Share = Annotated[
    float | None,
    Option(
        "Held-out share, by time or by share [default: 20%]; by user, the share of users to hold out items of.",
        "SHARE%",
        read=texts.share,
    ),
]
Items = Annotated[
    int | None, Option("Number of items held out of each user who has twice as many, by user.", "N", min=1)
]
SplitSeed = Annotated[int, Option("Random seed of the split and of every sample.", "N", min=0)]
TestQuery = Annotated[str | None, Option("The test set: SELECT of user_id and item_id.", "SELECT")]
TestFile = Annotated[File | None, Option("The test set: a file of pairs, as of recstore benchmark.", "FILE")]
Ks = Annotated[Sequence[int], Option("Lengths of the lists.", "K,K,..", flags="--k -k", read=texts.lengths)]
Users = Annotated[
    int | float | None,
    Option("Measure a sample: a number of users, or a share of them.", "N|SHARE%", read=texts.sample),
]
IncludeSeen = Annotated[bool, Option("Rank the items of the training part, too, as some published tables do.")]
Curve = Annotated[
    int, Option("Iterations between two measurements on train and validation; 0: no learning curve.", "N", min=0)
]
Plan = Annotated[SearchPlan, Option("Plan by which SQL finds the nearest items.")]
Report = Annotated[File | None, Option("Write a report, one self-contained page.", "FILE.html")]
Pictures = Annotated[
    File | None, Option("Write the pictures, too, as PNG, into this folder, created if it is missing.", "FOLDER")
]


class Measuring(Part):
    """Measurements. Only `tune(adopt=True)` changes a recommender."""

    def evaluate(
        self,
        name: Name,
        *,
        split: Split = None,
        share: Share = None,
        items: Items = None,
        split_seed: SplitSeed = 42,
        test_query: TestQuery = None,
        test_file: TestFile = None,
        k: Ks = (10, 20),
        users: Users = None,
        include_seen: IncludeSeen = False,
        negatives: Annotated[
            int,
            Option(
                "Rank the test items among a number of random others only, as some published tables do; 0: among all.",
                "N",
                min=0,
            ),
        ] = 0,
        curve: Curve = 0,
        sql: Annotated[
            bool, Option("Also measure the store: publish a scratch recommender, query and remove it.")
        ] = False,
        search: Plan = "auto",
        report: Report = None,
        pictures: Pictures = None,
        device: Device = None,
        threads: Threads = None,
        yes: Yes = False,
        reporter: Reporter | None = None,
        **settings: Annotated[Any, Sections((*WITHOUT, "storage"))],
    ) -> "Evaluation":
        """Measure a recommender's settings on pairs held out of its training, next to baselines. Changes nothing.

        `settings` (`factors`, `alpha`, ..) replace its own. `share` is 0.2 for 20 %; `users` a number, or a share below 1.

        Raises SplitImpossible, TimesMissing, InvalidInput.
        """
        from recstore.experiments import evaluate as evaluating
        from recstore.experiments.measurement import Measurement

        wanted = Measurement(tuple(sorted(set(k))), users, include_seen, negatives, curve, sql, search, split_seed)
        choice = evaluating.chosen_part(split, share, items, split_seed, test_query, texts.path(test_file))
        check_report(texts.path(report), texts.path(pictures))
        options.by_section(settings, without=(*WITHOUT, "storage"))
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
        name: Name,
        *,
        metric: Annotated[
            str | None,
            Option(
                "Metric to maximize: ndcg, recall, precision, map or hit_rate, @ the lists' length, or r2 of ratings."
                " [default: ndcg@20, of ratings r2]"
            ),
        ] = None,
        trials: Annotated[
            int | None, Option("Largest number of trials. [default: 80, of a grid all]", "N", min=1)
        ] = None,
        time: Annotated[
            float, Option("Most seconds that the trials take together, on all workers.", "SECONDS", min=1)
        ] = SECONDS,
        trainer: Annotated[
            Sequence[str], Option("Only this trainer; repeatable.", "NAME", complete="trainers", repeat=True)
        ] = (),
        max_factors: Annotated[
            int | None,
            Option("Largest number of factors. [default: what the data can determine, up to 1984]", "N", min=1),
        ] = None,
        space: Annotated[
            Mapping[str, Any] | None,
            Option(
                "A TOML file that narrows the search: a value, a list, or low and high.",
                "FILE",
                read=lambda text: options.parsed(Path(text)),
            ),
        ] = None,
        grid: Annotated[
            Mapping[str, Sequence[Any]] | None,
            Option(
                "Try every combination of such lists instead of searching.",
                "NAME=VALUE,VALUE,..",
                read=texts.values,
                repeat=True,
            ),
        ] = None,
        max_iterations: Annotated[
            int, Option("End of a learning curve that is still rising.", "N", min=1, max=1000)
        ] = 30,
        curve: Annotated[
            int | None,
            Option("Iterations between two points of a learning curve. [default: 3 at most]", "N", min=1),
        ] = None,
        include_seen: IncludeSeen = False,
        users: Annotated[
            int, Option("Number of users on whom each trial is measured, the same in all.", "N", min=1)
        ] = 4000,
        split: Split = None,
        share: Share = None,
        items: Items = None,
        seed: SplitSeed = 42,
        test_query: TestQuery = None,
        test_file: TestFile = None,
        resume: Annotated[bool, Option("Take up the newest unfinished study, whatever its options.")] = False,
        new: Annotated[bool, Option("Begin again, even if the same search was begun before.")] = False,
        study: Annotated[
            int | None,
            Option("Resume this study, or show it if it has ended.", "N", complete="studies"),
        ] = None,
        background: Annotated[bool, Option("Leave the trials to the workers.")] = False,
        parallel: Annotated[int | None, Option("With --background: trials at once. [default: 1]", "N", min=1)] = None,
        adopt: Annotated[bool, Option("Write the best settings into the recommender.")] = False,
        resize: Annotated[
            bool, Option("With --adopt: make room for more factors, as recstore alter --resize.")
        ] = False,
        report: Report = None,
        pictures: Pictures = None,
        device: Device = None,
        threads: Threads = None,
        reporter: Reporter | None = None,
        watch: Any = None,
        begins: Callable[..., object] | None = None,
    ) -> Tuned:
        """Search for good hyperparameters on a part held out for that; then measure the best, once, on another.

        Called again with the same options it continues. With `background` it returns at once. `watch` sees each trial,
        `begins` is called with the study before the first one.

        Raises StudyEmpty, StudyNotFound, NothingToResume, InvalidInput.
        """
        from recstore.experiments import evaluate as evaluating
        from recstore.experiments.tuning import studies, work
        from recstore.experiments.tuning.search_options import Options, default_metric

        work.check(
            resume=resume, new=new, study=study, background=background, parallel=parallel, adopt=adopt, resize=resize,
            report=report is not None,
        )  # fmt: skip
        check_report(texts.path(report), texts.path(pictures))
        own = self._settings(device=device, threads=threads)
        with self._current() as opened:
            metric = metric or default_metric(registry.get(opened, name).definition)
        asked = Options(
            metric=metric,
            trials=trials,
            seconds=time,
            trainers=tuple(trainer),
            max_factors=max_factors,
            space=space or {},
            grid={key: [str(value) for value in values] for key, values in (grid or {}).items()},
            most_iterations=max_iterations,
            curve=curve,
            include_seen=include_seen,
            users=users,
            seed=seed,
        )
        choice = evaluating.chosen_part(split, share, items, seed, test_query, texts.path(test_file))
        with self._current() as opened:
            recommender = registry.get(opened, name)
            known = work.resumed(opened, recommender, asked, choice, resume=resume, new=new, study=study)
            if known.study is not None and background:
                studies.set_parallel(opened, known.study, parallel or 1)
        number = known.study
        if number is None:
            at_once = parallel or int(background)
            number = work.begin(self.url, own, name, asked, choice, parallel=at_once, reporter=reporter)
        if begins:
            begins(replace(known, study=number))
        if background:
            with self._current() as opened:
                row, warning = studies.get(opened, number), watching.dispatch_warning(opened, self.settings)
            if warning and reporter:
                reporter.warn(warning)
            return Tuned(number, row["state"], row["outcome"], False, False, None)
        work.work(self.url, own, number, watch=watch, reporter=reporter)
        with self._current() as opened:
            found = work.result(opened, number)
        altered = adopt and work.adopt(self.url, own, number, resize=resize, reporter=reporter)[1]
        _write(found, report, pictures)
        return Tuned(number, found.state, found.outcome, adopt, altered, found)

    def stop_tuning(self, name: str, study: int | None = None) -> list[int]:
        """End this study, or the recommender's unfinished ones, with the best so far; return the studies that it ended."""
        from recstore.experiments.tuning import work

        with self._current() as opened:
            return work.stop_all(opened, registry.get(opened, name), study)

    def benchmark(
        self,
        train: Annotated[File, Option("The training pairs.", "FILE")],
        test: Annotated[File, Option("The test pairs.", "FILE")],
        *,
        negatives: Annotated[
            File | None,
            Option("Items sampled for each user, the only ones that a test item is ranked against.", "FILE"),
        ] = None,
        format: Annotated[
            Literal["auto", "pairs", "lists"], Option("Format of both files; auto: detected for each.")
        ] = "auto",
        values: Annotated[bool, Option("Take counts or ratings from the files, or count each pair 1.")] = True,
        k: Ks = (10, 20),
        users: Users = None,
        include_seen: IncludeSeen = False,
        curve: Curve = 0,
        tune: Annotated[
            bool,
            Option("Search for good hyperparameters first, on a validation part of the training pairs."),
        ] = False,
        trials: Annotated[
            int | None, Option("With --tune: largest number of trials. [default: 80]", "N", min=1)
        ] = None,
        time: Annotated[float, Option("With --tune: most seconds of the search.", "SECONDS", min=1)] = SECONDS,
        sql: Annotated[
            bool, Option("Measure through the store as well, in a scratch recommender; or NumPy alone.")
        ] = True,
        search: Plan = "auto",
        split_seed: SplitSeed = 42,
        keep: Annotated[str | None, Option("Keep the recommender, under this name.", "NAME")] = None,
        report: Report = None,
        pictures: Pictures = None,
        device: Device = None,
        threads: Threads = None,
        yes: Yes = False,
        reporter: Reporter | None = None,
        watch: Any = None,
        **settings: Annotated[Any, Sections((*WITHOUT, "filters"))],
    ) -> "Benchmark":
        """Train on a published split and print its metrics, through NumPy and through SQL, with the time of each step.

        Raises InvalidInput.
        """
        from recstore.experiments import benchmark as benchmarking
        from recstore.experiments.measurement import Measurement
        from recstore.experiments.tuning.search_options import Options, default_metric

        if trials is not None and not tune:
            raise InvalidInput("--trials goes with --tune.")
        wanted = Measurement(tuple(sorted(set(k))), users, include_seen, 0, curve, sql, search, split_seed)
        check_report(texts.path(report), texts.path(pictures))
        files = benchmarking.Files(Path(train), Path(test), texts.path(negatives), format, values)
        chosen = options.by_section(settings, without=(*WITHOUT, "filters"))
        explicit = chosen.get("hyperparameters", {}).get("trainer") == RATINGS
        source = {"table": "none", "value": "value", "feedback": "explicit" if explicit else "implicit"}
        definition = options.merge({"source": source}, chosen, None)
        if sql:
            with self._current() as opened:
                check_publications(opened, yes)
        found = benchmarking.benchmark(
            self.url if sql else None,
            self._settings(device=device, threads=threads),
            files,
            definition,
            wanted,
            tune=Options(default_metric(definition), trials=trials, seconds=time, seed=split_seed) if tune else None,
            watch=watch,
            keep=keep,
            reporter=reporter,
        )
        _write(found.evaluation, report, pictures)
        return found


def _write(found: "Evaluation | SearchResult", report: File | None, pictures: File | None) -> None:
    if report is not None:
        from recstore.experiments.report import page  # matplotlib takes a second

        page.write(Path(report), found, texts.path(pictures))
