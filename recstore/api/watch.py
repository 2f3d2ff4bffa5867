"""Watching, as any role with `store.db.grant(role)` may: status, runs, logs, requests, health; and what stands in the way."""

from collections.abc import Sequence

from recstore.api.base import Part
from recstore.api.rows import Dispatch, Request, Run, RunStory, Status, Watched
from recstore.background import health, watching
from recstore.background.watching import NoConnection, Replay
from recstore.doctor import Finding, examine
from recstore.embedded.configured import broker_url
from recstore.runs import Reporter


class Watching(Part):
    """What is, what was, what comes next."""

    def status(self, name: str | None = None) -> Status:
        """Each recommender: what is live, what runs and how far it is, what waits, when it retrains next. Raises
        RecommenderNotFound."""
        with self._watching() as opened:
            seen = watching.status(opened, self.settings, name)
        recommenders = [
            Watched.of(row, open_requests=[Request.of(request) for request in row["open_requests"]])
            for row in seen["recommenders"]
        ]
        return Status(seen["now"], recommenders, [Dispatch.of(row) for row in seen["dispatches"]], seen["warning"])

    def runs(
        self, name: str | None = None, *, n: int = 20, job: str | None = None, state: str | None = None
    ) -> list[Run]:
        """The newest n runs, the newest last; only of a job, only in a state. Raises RecommenderNotFound."""
        with self._watching() as opened:
            return [Run.of(row) for row in watching.runs(opened, name, n=n, job=job, state=state)]

    def logs(
        self, run: int | str | None = None, *, follow: bool = False, reporter: Reporter | None = None
    ) -> RunStory | None:
        """The story of a run, by its number, or of the newest one of a recommender, or of all; None where there is none. With
        `follow` when it has ended; the `reporter` is told what it does meanwhile. Raises RunNotFound, RecommenderNotFound."""
        with self._watching() as opened:
            number = run if isinstance(run, int) else watching.newest_run(opened, run)
            if number is None:
                return None
            found = watching.run(opened, number)
        replay = Replay(reporter) if reporter else None
        if replay:
            replay.show(found)
        if follow and found["state"] == "running":
            for seen in watching.followed(self._watching, number):
                if isinstance(seen, NoConnection):
                    continue
                found = seen
                if replay:
                    replay.show(found)
        return RunStory.of(found)

    def requests(self, name: str | None = None, *, open: bool = False, n: int = 20) -> list[Request]:
        """What was asked of the workers and what became of it, the newest last; with `open` only what is not finished. To ask
        is `request.retrain(..)`. Raises RecommenderNotFound."""
        with self._watching() as opened:
            return [Request.of(row) for row in watching.asked(opened, name, n=n, open=open)]

    def health(self) -> health.Health:
        """Whether the database is current and pgvector usable, the broker answers, and workers look for due work. Raises what
        is wrong: ConnectionFailed, SchemaOutdated, BrokerUnreachable, DispatchMissing, .."""
        return health.check(self.url, broker_url(self.settings), self.settings)

    def doctor(self, name: str | None = None, *, reader: Sequence[str] = ()) -> list[Finding]:
        """Everything that was looked at, of a recommender or of all, as each application's role in `reader` sees it; what it
        means and what mends it. Changes nothing. Raises RecommenderNotFound, InvalidInput."""
        return examine(self.settings, name, reader)
