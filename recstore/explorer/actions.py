"""The buttons of operators: requests to the workers, and what acts at once. Each answers with a sentence."""

from collections.abc import Callable
from typing import Any

from flask import Flask, abort, redirect, request, session, url_for

from recstore.api.store import Recstore
from recstore.config import Settings
from recstore.errors import RecstoreError


def register(app: Flask, settings: Settings) -> None:
    """Let a form post an action."""
    given = settings.model_dump(exclude_unset=True)
    store = Recstore(given.pop("database_url", None), **given)

    def number() -> int | None:
        return request.form.get("number", type=int)

    def published(name: str) -> str:
        outcome = store.publish(name, number())
        if outcome.live:
            return f"Generation {outcome.generation} is live."
        return f"Generation {outcome.generation} stays ready; it waits for {', '.join(outcome.blockers) or 'its turn'}."

    def rolled_back(name: str) -> str:
        done = store.rollback(name, to=number())
        until = f"No other goes live until: recstore release {name}"
        return f"Generation {done.live} is live again instead of {done.was_live}. {until}"

    def cancelled_run(name: str) -> str:  # noqa: ARG001
        run = store.cancel(number() or 0)
        return (
            f"Run {run.run} is {run.state}." if run.state != "running" else f"Run {run.run} will end at its next step."
        )

    actions: dict[str, Callable[[str], str]] = {
        "retrain": lambda name: f"Asked a worker to retrain {name}: request {store.request.retrain(name).request}.",
        "reindex": lambda name: f"Asked a worker to reindex {name}: request {store.request.reindex(name).request}.",
        "publish": published,
        "rollback": rolled_back,
        "cancel": cancelled_run,
        "cancel_request": lambda _: f"Request {store.request.cancel(number() or 0).request} is cancelled.",
    }

    @app.post("/r/<name>/do/<action>")
    def act(name: str, action: str) -> Any:
        if action not in actions:
            abort(404)
        try:
            session["said"] = actions[action](name), "good"
        except RecstoreError as error:
            session["said"] = error.message, "bad"
        return redirect(url_for("recommender", name=name))
