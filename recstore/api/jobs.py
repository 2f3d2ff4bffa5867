"""Jobs, done here and now: retrain, refresh, reindex, publish, generations, rollback, release, prune; the lists of everybody."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from recstore.api.arguments import Argument, Device, Force, Name, Option, Threads
from recstore.api.base import Part
from recstore.api.rows import Generation, Pruned, Released, RolledBack, RunStory
from recstore.background import watching
from recstore.errors import RunEnded
from recstore.operations import jobs, recommenders
from recstore.operations.jobs import Outcome
from recstore.runs import Reporter
from recstore.sql import queries

if TYPE_CHECKING:
    from recstore.lists import Made
    from recstore.refresh import Refreshed

Into = Annotated[
    str | Path, Option("A table, as schema.table, or a file that ends with .csv, .csv.gz or .parquet.", "TABLE|FILE")
]
K = Annotated[int, Option("Length of each list.", "N", flags="--k -k", min=1)]


ENDING = 3.0
"""Seconds that `cancel` waits for the run to end."""


class Jobs(Part):
    """Jobs in this process. Each reports to `reporter` (see `recstore.Reporter`), and prints nothing itself. Ctrl-C and any
    other exception leave what was live live."""

    def retrain(
        self,
        name: Name,
        *,
        loss: Annotated[bool, Option("Compute and show the loss of each iteration.")] = False,
        device: Device = None,
        threads: Threads = None,
        force: Force = False,
        publish: Annotated[
            bool, Option("Make it live; otherwise it goes live by recstore publish NAME GENERATION.")
        ] = True,
        reporter: Reporter | None = None,
    ) -> Outcome:
        """Pull the view counts, train, and publish a new generation. The live one serves until the flip.

        `live` is False where the new generation is ready but waits for the sessions in `blockers`: then `publish`. Without
        `publish` it is complete and `withheld`.

        Raises GateRefused, SourceShrunk, RunInProgress, NothingLeft.
        """
        from recstore import doctor, pipeline

        settings = self._settings(device=device, threads=threads)
        options: dict[str, Any] = {"with_loss": loss, "force": force, "examine": doctor.problems_of}
        retrain = pipeline.retrain if publish else pipeline.retrain_apart
        return retrain(self.url, settings, name, reporter=reporter, **options)

    def refresh(self, name: Name, *, threads: Threads = None, reporter: Reporter | None = None) -> "Refreshed":
        """Store users and items with changed interactions in the live generation, while readers go on. Nothing is trained.

        Raises NotTrained, RefreshRefused, RefreshOvertaken, RunInProgress.
        """
        from recstore.refresh import refresh

        return refresh(self.url, self._settings(threads=threads), name, reporter=reporter)

    def reindex(self, name: Name, *, reporter: Reporter | None = None) -> Outcome:
        """Rebuild the indexes of the live generation and calibrate it again, while readers go on. Nothing is trained.

        Raises NotTrained, ReindexBlocked, RunInProgress.
        """
        return jobs.reindex(self.url, self.settings, name, reporter=reporter)

    def publish(
        self,
        name: Name,
        generation: Annotated[int | None, Argument("The one to publish, if withheld.", complete="generations")] = None,
        *,
        now: Annotated[bool, Option("Publish without waiting; names the sessions that this disturbs.")] = False,
        wait: Annotated[float, Option("Seconds to wait for other sessions.", "SECONDS", min=0)] = 0,
        reporter: Reporter | None = None,
    ) -> Outcome:
        """Make a generation live that is ready but had to wait, or that retrain --no-publish left.

        With `now`, `warnings` names the sessions that may get empty answers.

        Raises NothingReady, GenerationNotFound.
        """
        return jobs.publish(self.url, self.settings, name, generation, now=now, wait=wait, reporter=reporter)

    def generations(
        self, name: Name, *, all: Annotated[bool, Option("Also those that are pruned.")] = False
    ) -> list[Generation]:
        """List the generations: live, previous, ready, withheld, next.

        The oldest comes first. Numbers are given across the recommenders of a database. Raises RecommenderNotFound.
        """
        with self._current() as opened:
            return [Generation.of(row) for row in recommenders.generations(opened, name, pruned=all)]

    def rollback(
        self,
        name: Name,
        *,
        to: Annotated[
            int | None,
            Option("This generation instead of the newest before the live one.", "GENERATION", complete="generations"),
        ] = None,
    ) -> RolledBack:
        """Make an earlier generation live again, at once. Undo it with --to.

        No other goes live by itself until `release`. Raises NothingToRollBack, GenerationNotFound, NotTrained.
        """
        return RolledBack(*jobs.roll_back(self.url, name, to=to))

    def cancel(self, run: Annotated[int, Argument("The run's number.", complete="runs")]) -> RunStory:
        """End a run in progress: its statement in the database at once, the rest at its next step.

        What is live stays live. Waits a few seconds for the end. Raises RunNotFound, RunEnded.
        """
        with self._watching() as opened:
            row, deadline = watching.run(opened, run), time.monotonic() + ENDING
            if not queries.one(opened, "cancel_run", run=run)["cancelled"]:
                raise RunEnded(run=run, state=row["state"])
            while time.monotonic() < deadline:
                time.sleep(0.2)
                if not queries.one(opened, "cancel_run", run=run)["cancelled"]:  # its next statement, too
                    break
            return RunStory.of(watching.run(opened, run))

    def release(self, name: Name) -> Released:
        """Let generations go live again after a rollback.

        Raises RecommenderNotFound.
        """
        was_held = jobs.release(self.url, name)
        with self._watching() as opened:
            (found,) = watching.status(opened, self.settings, name)["recommenders"]
        return Released(was_held, found["ready_generation"])

    def prune(
        self,
        name: Name,
        *,
        keep: Annotated[int | None, Option("Generations to keep, the live one included.", "N", min=1)] = None,
        withheld: Annotated[bool, Option("Also the generation that retrain --no-publish left.")] = False,
        reporter: Reporter | None = None,
    ) -> Pruned:
        """Remove old generations and what dead runs left.

        Without `keep`, as many stay as the definition says. Raises RecommenderNotFound, RunInProgress.
        """
        done = jobs.prune(self.url, self.settings, name, keep=keep, withheld=withheld, reporter=reporter)
        return Pruned(done["pruned"], done.get("postponed", {}), done.get("retained", {}))


class Listing(Part):
    """The lists of all users and items, at once."""

    def recommend_all(
        self,
        name: Name,
        into: Into,
        *,
        k: K = 20,
        users: Annotated[
            str | None,
            Option("A SELECT whose first column names the users, known or not; otherwise all of them.", "SQL"),
        ] = None,
        threads: Threads = None,
        reporter: Reporter | None = None,
    ) -> "Made":
        """Write every user's recommendations to a table or a file: what recommend() returns, by exact scan.

        What was there is replaced. Raises ListTableRefused, ListsNotWritten, NotTrained.
        """
        from recstore import lists

        settings = self._settings(threads=threads)
        return lists.recommend_all(self.url, settings, name, into, k=k, users=users, reporter=reporter)

    def similar_all(
        self,
        name: Name,
        into: Into,
        *,
        k: K = 20,
        min_users: Annotated[int, Option("Least number of distinct users of a listed item.", "N", min=1)] = 3,
        threads: Threads = None,
        reporter: Reporter | None = None,
    ) -> "Made":
        """Write every item's similar items to a table or a file: what similar_items() returns, by exact scan.

        What was there is replaced. Raises ListTableRefused, ListsNotWritten, NotTrained.
        """
        from recstore import lists

        settings = self._settings(threads=threads)
        return lists.similar_all(self.url, settings, name, into, k=k, min_users=min_users, reporter=reporter)

    def lists(self, name: Name, *, threads: Threads = None, reporter: Reporter | None = None) -> "list[Made]":
        """Write the tables of lists that the recommender's definition names, as the workers do when they are due.

        Raises ListTableRefused, NotTrained, InvalidInput.
        """
        from recstore import lists

        return lists.write_defined(self.url, self._settings(threads=threads), name, reporter=reporter)
