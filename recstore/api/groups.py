"""Groups of commands: `recstore request ..` and `recstore db ..`."""

import time
from typing import Any

from recstore import requests
from recstore.api.base import Part
from recstore.api.rows import Request, Revision, Statements, Upgraded
from recstore.background import watching
from recstore.background.watching import OPEN, NoConnection, Replay
from recstore.errors import InvalidInput, RequestFailed, StillOpen
from recstore.operations import schema
from recstore.postgres import grants
from recstore.requests import Job
from recstore.runs import Reporter
from recstore.sql import schema_revision


class Requesting(Part):
    """Asks the workers for a job, and waits for it if you like. A request that failed or was cancelled while it was waited for
    raises RequestFailed, one still open after `timeout` seconds StillOpen; it goes on then."""

    def retrain(
        self,
        name: str,
        *,
        wait: bool = False,
        timeout: float | None = None,
        force: bool = False,
        reporter: Reporter | None = None,
    ) -> Request:
        """Asks for a training. Raises RecommenderNotFound."""
        return self._ask(name, "retrain", wait, timeout, reporter, force=force)

    def reindex(
        self, name: str, *, wait: bool = False, timeout: float | None = None, reporter: Reporter | None = None
    ) -> Request:
        """Asks for the live generation's indexes to be built anew and calibrated. Raises RecommenderNotFound."""
        return self._ask(name, "reindex", wait, timeout, reporter)

    def lists(
        self, name: str, *, wait: bool = False, timeout: float | None = None, reporter: Reporter | None = None
    ) -> Request:
        """Asks for the tables of lists that the definition names. Raises RecommenderNotFound."""
        return self._ask(name, "lists", wait, timeout, reporter)

    def cancel(self, number: int) -> Request:
        """Takes a request back that no run has begun. Raises RequestNotFound, RequestBegun."""
        with self._watching() as opened:
            return Request.of(requests.cancel(opened, number))

    def _ask(
        self,
        name: str,
        job: Job,
        wait: bool,
        timeout: float | None,
        reporter: Reporter | None,
        *,
        force: bool = False,
    ) -> Request:
        if timeout is not None and not wait:
            raise InvalidInput("--timeout says how long to wait: it goes with --wait.")
        with self._watching() as opened:
            number = requests.ask(opened, name, job, force=force)
            warning = watching.nobody_dispatches(opened, self.settings)
            row = requests.get(opened, number)
        if warning and reporter:
            reporter.warn(warning)
        return Request.of(self._wait(number, timeout, reporter) if wait else row)

    def _wait(self, number: int, timeout: float | None, reporter: Reporter | None) -> dict[str, Any]:
        """The request's row when it has ended."""
        began, replays = time.monotonic(), dict[int, Replay]()

        def look(opened: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
            row = requests.get(opened, number)
            return row, None if row["run"] is None else watching.run(opened, row["run"])

        state = "waiting"
        for seen in watching.polled(self._watching, look):
            if not isinstance(seen, NoConnection):
                row, run = seen
                state = row["state"]
                if run and reporter:
                    replays.setdefault(run["run"], Replay(reporter)).show(run)
                if state in ("failed", "cancelled"):
                    raise RequestFailed(request=number, state=state, outcome=row["outcome"])
                if state not in OPEN:
                    return row
            if timeout is not None and time.monotonic() - began > timeout:
                break
        raise StillOpen(request=number, state=state, seconds=timeout)


class Schema(Part):
    """recstore's own schema in the database, and who may watch and ask."""

    def upgrade(self) -> Upgraded:
        """Brings the database to this version: recstore's schema, then every recommender's functions and views. Idempotent;
        readers read on. Raises MigrationBlocked, ExtensionMissing, .."""
        with self._connection() as opened:
            done = schema.upgrade(opened, self.url, self.settings)
            return Upgraded(done, schema_revision.current(opened))

    def downgrade(self, revision: str) -> Revision:
        """Goes back to an earlier revision, "base" being none. Refused while there are recommenders; nobody is asked."""
        with self._connection() as opened:
            schema.downgrade(self.url, revision)
            return Revision(schema_revision.current(opened), schema_revision.head())

    def current(self) -> Revision:
        """The database's revision and the one this version needs."""
        with self._connection() as opened:
            return Revision(schema_revision.current(opened), schema_revision.head())

    def check(self) -> Revision:
        """Raises SchemaMissing, SchemaOutdated, SchemaTooNew or RecstoreError unless the database is as this version declares
        it."""
        with self._current() as opened:
            schema.check(self.url)
            return Revision(schema_revision.current(opened), schema_revision.head())

    def grant(self, role: str, *, requests: bool = True) -> Statements:
        """Lets a role watch all recommenders and, with `requests`, ask the workers for jobs. Raises InvalidInput."""
        with self._current() as opened:
            return Statements(tuple(grants.grant_watcher(opened, role, requests=requests)))

    def revoke(self, role: str) -> Statements:
        """Takes back what `grant` gave. Raises InvalidInput."""
        with self._current() as opened:
            return Statements(tuple(grants.revoke_watcher(opened, role)))
