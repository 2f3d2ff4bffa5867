"""Jobs, done here and now: retrain, reindex, publish, generations, rollback, prune; the lists of everybody."""

from pathlib import Path

from recstore import lists as batch
from recstore import pipeline
from recstore.api.base import Part
from recstore.api.rows import Generation, Pruned, RolledBack
from recstore.lists import Made
from recstore.operations import jobs, recommenders
from recstore.operations.jobs import Outcome
from recstore.runs import Reporter


class Jobs(Part):
    """Jobs in this process. Each takes a `reporter` (see `recstore.Reporter`), and says nothing without. Ctrl-C and any other
    exception leave what was live live."""

    def retrain(
        self,
        name: str,
        *,
        loss: bool = False,
        device: str | None = None,
        threads: int | None = None,
        force: bool = False,
        reporter: Reporter | None = None,
    ) -> Outcome:
        """Pulls the view counts, trains, and publishes a new generation; the live one serves until the flip. `live` is False
        where it is ready but waits for the sessions in `blockers`: then `publish`. With `force`, also what the gate or the
        source guard would refuse. Raises GateRefused, SourceShrunk, RunInProgress, NothingLeft, .."""
        given = self._settings(device=device, threads=threads)
        return pipeline.retrain(self.url, given, name, reporter=reporter, with_loss=loss, force=force)

    def reindex(self, name: str, *, reporter: Reporter | None = None) -> Outcome:
        """Rebuilds the indexes of the live generation and calibrates it again, while readers go on. Raises NotTrained,
        ReindexBlocked, RunInProgress."""
        return jobs.reindex(self.url, self.settings, name, reporter=reporter)

    def publish(self, name: str, *, now: bool = False, wait: float = 0, reporter: Reporter | None = None) -> Outcome:
        """Makes a generation live that is ready but had to wait: if nobody holds it up any more within `wait` seconds, or
        `now`, whomever that disturbs (`warnings` name them). Raises NothingReady."""
        return jobs.publish(self.url, self.settings, name, now=now, wait=wait, reporter=reporter)

    def generations(self, name: str, *, all: bool = False) -> list[Generation]:
        """The generations, the oldest first; with `all` also those that are pruned. Raises RecommenderNotFound."""
        with self._current() as opened:
            return [Generation.of(row) for row in recommenders.generations(opened, name, pruned=all)]

    def rollback(self, name: str, *, to: int | None = None) -> RolledBack:
        """Makes an earlier generation live again, at once: `to`, or the newest before the live one. Undo it with `to`. Raises
        NothingToRollBack, GenerationNotFound, NotTrained."""
        return RolledBack(*jobs.roll_back(self.url, name, to=to))

    def prune(self, name: str, *, keep: int | None = None, reporter: Reporter | None = None) -> Pruned:
        """Removes old generations and what dead runs left; `keep` so many, the live one included."""
        done = jobs.prune(self.url, self.settings, name, keep=keep, reporter=reporter)
        return Pruned(done["pruned"], done.get("postponed", {}), done.get("retained", {}))

    def recommend_all(
        self,
        name: str,
        into: str | Path,
        *,
        k: int = 20,
        users: str | None = None,
        threads: int | None = None,
        reporter: Reporter | None = None,
    ) -> Made:
        """Writes every user's recommendations, or those of the users that the SELECT `users` names, to a table (schema.table)
        or a file (.csv, .csv.gz, .parquet), which is replaced. Raises ListTableRefused, ListsNotWritten, NotTrained."""
        given = self._settings(threads=threads)
        return batch.recommend_all(self.url, given, name, into, k=k, users=users, reporter=reporter)

    def similar_all(
        self,
        name: str,
        into: str | Path,
        *,
        k: int = 20,
        min_users: int = batch.MIN_USERS,
        threads: int | None = None,
        reporter: Reporter | None = None,
    ) -> Made:
        """Writes every item's similar items, as `recommend_all` does."""
        given = self._settings(threads=threads)
        return batch.similar_all(self.url, given, name, into, k=k, min_users=min_users, reporter=reporter)

    def lists(self, name: str, *, threads: int | None = None, reporter: Reporter | None = None) -> list[Made]:
        """Writes the tables of lists that the recommender's definition names."""
        given = self._settings(threads=threads)
        return batch.write_defined(self.url, given, name, reporter=reporter)
