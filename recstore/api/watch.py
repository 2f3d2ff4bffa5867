"""Watching, as any role with `store.db.grant(role)` may: status, runs, logs, requests, studies, health; and the doctor."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, overload

from recstore.api.arguments import Argument, Newest, Option, SomeName
from recstore.api.base import Part
from recstore.api.rows import Dispatch, Request, Run, RunStory, Status, Study, Trial, Watched
from recstore.background import health, watching
from recstore.background.watching import NoConnection, Replay
from recstore.postgres.connection import Connection
from recstore.runs import Reporter, Silent

if TYPE_CHECKING:
    from recstore.doctor import Finding

Job = Literal["retrain", "refresh", "reindex", "prune", "publish", "resize", "import", "lists"]
State = Literal["running", "succeeded", "ready", "skipped", "failed", "abandoned", "cancelled"]


def _run(text: str) -> int | str:
    """Return a run's number as an int; no recommender's name begins with a digit."""
    return int(text) if text.isdecimal() else text


class Watching(Part):
    """The present, the past and the next runs."""

    def status(self, name: SomeName = None) -> Status:
        """Show each recommender: what is live, what runs and how far it is, what waits, and when it retrains next.

        Raises RecommenderNotFound.
        """
        with self._watching() as opened:
            return self._status(opened, name)

    def statuses(self, name: str | None = None, *, interval: float = 2) -> Iterator[Status | NoConnection]:
        """Yield the status again and again, every `interval` seconds. Raises RecommenderNotFound."""
        known: dict[str, list[str]] = {}
        yield from watching.polled(self._watching, lambda opened: self._status(opened, name, known), interval)

    def _status(self, opened: Connection, name: str | None, known: dict[str, list[str]] | None = None) -> Status:
        seen = watching.status(opened, self.settings, name, known)
        recommenders = [
            Watched.of(row, open_requests=[Request.of(request) for request in row["open_requests"]])
            for row in seen["recommenders"]
        ]
        return Status(seen["now"], recommenders, [Dispatch.of(row) for row in seen["dispatches"]], seen["warning"])

    def runs(
        self,
        name: SomeName = None,
        *,
        n: Newest = 20,
        job: Annotated[Job | None, Option("Only runs of this job.")] = None,
        state: Annotated[State | None, Option("Only runs in this state.")] = None,
    ) -> list[Run]:
        """List the runs, the newest last: when, how long, and how each ended.

        Raises RecommenderNotFound.
        """
        with self._watching() as opened:
            return [Run.of(row) for row in watching.runs(opened, name, n=n, job=job, state=state)]

    def logs(
        self,
        run: Annotated[
            int | str | None,
            Argument(
                "Its number, or a recommender for its newest; otherwise the newest of all.",
                "[RUN|NAME]",
                complete="recommenders_and_runs",
                read=_run,
            ),
        ] = None,
        *,
        follow: Annotated[bool, Option("Go on until it ends, or Ctrl-C.", flags="--follow -f")] = False,
        reporter: Reporter | None = None,
    ) -> RunStory | None:
        """Show the story of a run: who, where, with what, each stage, and how it ended.

        None where there is no run. The stages are reported to `reporter`; with `follow`, until the run has ended.

        Raises RunNotFound, RecommenderNotFound.
        """
        with self._watching() as opened:
            number = run if isinstance(run, int) else watching.newest_run(opened, run)
        if number is None:
            return None
        reporter = reporter or Silent()
        replay, found = Replay(reporter), dict[str, Any]()
        for seen in watching.followed(self._watching, number):
            if isinstance(seen, NoConnection):
                reporter.warn(str(seen))
                continue
            found = seen
            replay.show(found)
            if not follow:
                break
        return RunStory.of(found)

    def requests(
        self,
        name: SomeName = None,
        *,
        open: Annotated[bool, Option("Only those that are not finished.")] = False,
        n: Newest = 20,
    ) -> list[Request]:
        """List what was asked of the workers and what became of it, the newest last.

        Raises RecommenderNotFound.
        """
        with self._watching() as opened:
            return [Request.of(row) for row in watching.asked(opened, name, n=n, open=open)]

    @overload
    def studies(self, name: str | None = None, *, n: int = 20) -> list[Study]: ...

    @overload
    def studies(self, name: str, study: int) -> list[Trial]: ...

    def studies(
        self,
        name: SomeName = None,
        study: Annotated[int | None, Argument("Study whose trials are listed.", "[STUDY]", complete="studies")] = None,
        n: Newest = 20,
    ) -> list[Study] | list[Trial]:
        """List the searches for good hyperparameters, the newest last, with the best of each; or the trials of one.

        Raises RecommenderNotFound, StudyNotFound.
        """
        with self._watching() as opened:
            if study is not None:
                return [Trial.of(row) for row in watching.study(opened, name, study)[1]]
            return [Study.of(row) for row in watching.studies(opened, name, n=n)]

    def study(self, name: str, study: int) -> Study:
        """Return one search. Raises RecommenderNotFound, StudyNotFound."""
        with self._watching() as opened:
            return Study.of(watching.study(opened, name, study)[0])

    def health(self) -> health.Health:
        """Check that the database is current and pgvector usable, that a configured broker answers, and that workers look for
        due work.

        Raises ConnectionFailed, SchemaOutdated, BrokerUnreachable, DispatchMissing.
        """
        return health.check(self.url, self.settings)

    def doctor(
        self,
        name: SomeName = None,
        *,
        reader: Annotated[
            Sequence[str],
            Option(
                "An application's role that calls recommend(); repeatable. Without it, the roles with grants on the schema.",
                "ROLE",
                complete="roles",
                repeat=True,
            ),
        ] = (),
        begins: Callable[[str], None] | None = None,
    ) -> "list[Finding]":
        """Look for what stands in the way before anything fails: server, rights, source, index builds, sessions, leftovers, GPU.

        Changes nothing. `begins` is called with the name of each check.

        Raises RecommenderNotFound, InvalidInput.
        """
        from recstore.doctor import examine

        return examine(self.settings, name, reader, begins or (lambda _: None))
