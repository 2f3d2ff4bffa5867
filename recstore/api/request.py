"""`recstore request ..`: ask the workers for a job, and wait for it."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

from recstore import requests
from recstore.api.arguments import Argument, Force, Name, Option
from recstore.api.base import Part
from recstore.api.rows import Request, RunStory
from recstore.background import watching
from recstore.background.watching import OPEN, NoConnection, Replay
from recstore.errors import InvalidInput, RequestFailed, StillOpen
from recstore.requests import Job
from recstore.runs import Reporter, Silent

Wait = Annotated[bool, Option("Wait until it is done, and show how far it is.")]
Timeout = Annotated[float | None, Option("With --wait: longest wait.", "SECONDS", min=0)]

Look = tuple[Request, RunStory | None, datetime]
"""A request, the run that serves it, and the server's time."""


class Requesting(Part):
    """Requests to the workers. With `wait`, a request that fails or is cancelled raises RequestFailed, one that is still open
    after `timeout` seconds StillOpen; it stays open then."""

    def retrain(
        self,
        name: Name,
        *,
        wait: Wait = False,
        timeout: Timeout = None,
        force: Force = False,
        reporter: Reporter | None = None,
    ) -> Request:
        """Ask a worker to retrain a recommender.

        Raises RecommenderNotFound, RequestFailed, StillOpen.
        """
        return self._ask(name, "retrain", wait, timeout, reporter, force=force)

    def refresh(
        self, name: Name, *, wait: Wait = False, timeout: Timeout = None, reporter: Reporter | None = None
    ) -> Request:
        """Ask a worker to store changed users and items in the live generation.

        Raises RecommenderNotFound, RequestFailed, StillOpen.
        """
        return self._ask(name, "refresh", wait, timeout, reporter)

    def reindex(
        self, name: Name, *, wait: Wait = False, timeout: Timeout = None, reporter: Reporter | None = None
    ) -> Request:
        """Ask a worker to rebuild the indexes of the live generation and to calibrate it again.

        Raises RecommenderNotFound, RequestFailed, StillOpen.
        """
        return self._ask(name, "reindex", wait, timeout, reporter)

    def lists(
        self, name: Name, *, wait: Wait = False, timeout: Timeout = None, reporter: Reporter | None = None
    ) -> Request:
        """Ask a worker to write the tables of lists that the recommender's definition names.

        Raises RecommenderNotFound, NoListTable, RequestFailed, StillOpen.
        """
        return self._ask(name, "lists", wait, timeout, reporter)

    def cancel(self, number: Annotated[int, Argument("The request's number.", complete="open_requests")]) -> Request:
        """Take a request back that no run has begun yet.

        Raises RequestNotFound, RequestBegun.
        """
        with self._watching() as opened:
            return Request.of(requests.cancel(opened, number))

    def followed(self, number: int, *, timeout: float | None = None) -> Iterator[Look | NoConnection]:
        """Yield a request with its run again and again, until it has ended. Raises RequestFailed, StillOpen."""

        def look(opened: Any) -> Look:
            row = requests.get(opened, number)
            run = None if row["run"] is None else RunStory.of(watching.run(opened, row["run"]))
            return Request.of(row), run, watching.clock(opened)

        began, state = time.monotonic(), "waiting"
        for seen in watching.polled(self._watching, look):
            yield seen
            if not isinstance(seen, NoConnection):
                state = seen[0].state
                if state in ("failed", "cancelled"):
                    raise RequestFailed(request=number, state=state, outcome=seen[0].outcome)
                if state not in OPEN:
                    return
            if timeout is not None and time.monotonic() - began > timeout:
                raise StillOpen(request=number, state=state, seconds=timeout)

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
            warning = watching.dispatch_warning(opened, self.settings)
            request = Request.of(requests.get(opened, number))
        reporter, replays = reporter or Silent(), dict[int, Replay]()
        if warning:
            reporter.warn(warning)
        for seen in self.followed(number, timeout=timeout) if wait else ():
            if not isinstance(seen, NoConnection):
                request, run, _ = seen
                if run:
                    replays.setdefault(run.run, Replay(reporter)).show(vars(run))
        return request
