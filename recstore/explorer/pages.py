"""A function for each page, which returns the values of its template."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import wraps
from typing import Any

import psycopg
from flask import Flask, g, render_template, request

from recstore import schedule
from recstore.api.progress import sentence
from recstore.api.rows import Generation
from recstore.background.watching import at_work, progress_of
from recstore.errors import InvalidInput
from recstore.explorer.drawing import Drawing, drawing
from recstore.explorer.reading import Listed, Page, Pages
from recstore.operations import questions
from recstore.sql.objects import Known
from recstore.wording import age, duration, printable

K = 10
"""Length of a list."""

FOUND = 20
"""Items that a search shows."""

HISTORY = 15
"""Runs, requests and searches that a page shows."""

RELOAD = 5
"""Seconds after which the page of a run in progress is loaded again."""

USERS = 200
"""Users whose lists of two generations are compared."""

METRICS = ("ndcg@20", "recall@20", "coverage@20", "rmse", "mae")
"""Metrics that are shown of a generation that has them."""

UNLIKE = {"previous": "the generation before", "ready": "it waits to go live", "withheld": "it is withheld"}
"""States of generations that answer and are not live, in words."""

COMPLETE = ("live", *UNLIKE)
"""States of generations that answer."""


def register(app: Flask, kept: Pages) -> None:
    """Serve every page; the name of its function is the template's."""
    for rule, function in (
        ("/", overview),
        ("/r/<name>", recommender),
        ("/r/<name>/run/<int:number>", run),
        ("/r/<name>/search/<int:number>", study),
        ("/r/<name>/items", items),
        ("/r/<name>/item", item),
        ("/r/<name>/user", user),
        ("/r/<name>/basket", basket),
        ("/r/<name>/compare", compare),
    ):
        app.add_url_rule(rule, function.__name__, _served(function, kept))


def _served(function: Callable[..., dict[str, Any]], kept: Pages) -> Callable[..., str]:
    @wraps(function)
    def view(**keys: Any) -> str:
        with kept.reading() as page:
            values = keys | function(page, **keys)
        if function is recommender:
            values["drift"] = kept.drift(keys["name"])
        return render_template(f"{function.__name__}.html", page=function.__name__, **values)

    return view


def overview(page: Page) -> dict[str, Any]:
    status = page.listed(lambda: [page.store.status()])
    status.sql = page.statement("FROM recstore.status") or status.sql
    return {"status": status.rows[0] if status.rows else None, "shown": status}


def recommender(page: Page, name: str) -> dict[str, Any]:
    known, status = page.known(name), page.store.status(name)
    (row,) = status.recommenders
    generations = page.listed(lambda: page.store.generations(name, all=True))
    complete = [one for one in generations.rows if one.state in COMPLETE]
    metrics = _metrics(generations.rows)
    if row.running:
        g.reload = RELOAD
    return {
        "known": known,
        "row": row,
        "status": status,
        "generations": generations,
        "live": next((one for one in complete if one.state == "live"), None),
        "complete": complete,
        "metrics": metrics,
        "charts": _charts(metrics),
        "runs": page.listed(lambda: page.store.runs(name, n=HISTORY)[::-1], "No run yet."),
        "requests": page.listed(
            lambda: page.store.requests(name, n=HISTORY)[::-1], "Nothing was asked of the workers."
        ),
        "studies": page.listed(lambda: page.store.studies(name, n=HISTORY)[::-1], "No search yet."),
    }


def _metrics(generations: Iterable[Generation]) -> dict[str, dict[int, float]]:
    """Return metric -> generation -> value, and the same of the baseline that the gate compares with."""
    found: dict[str, dict[int, float]] = {metric: {} for metric in METRICS}
    for one in generations:
        measured = one.metrics or {}
        for metric in METRICS:
            if metric in (measured.get("metrics") or {}):
                found[metric][one.generation] = measured["metrics"][metric]
        if base := measured.get("popularity"):
            name = f"{base['other']}, {base.get('metric', METRICS[0])}"
            found.setdefault(name, {})[one.generation] = base["of_other"]
    return {metric: values for metric, values in found.items() if values}


def _charts(metrics: dict[str, dict[int, float]]) -> dict[str, Drawing]:
    """Return a drawing of each metric over the generations, with its baseline."""
    charts = {}
    for metric in METRICS:
        lines = {"model": metrics.get(metric, {})}
        lines |= {name.split(",")[0]: values for name, values in metrics.items() if name.endswith(f", {metric}")}
        series = {name: list(values.items()) for name, values in lines.items()}
        if drawn := drawing(series, "generation {x:g}: {y:.4f}", 0):
            charts[metric] = drawn
    return charts


def run(page: Page, name: str, number: int) -> dict[str, Any]:
    page.known(name)
    story = page.store.logs(number)
    assert story
    if story.state == "running":
        g.reload = RELOAD
    at = at_work(vars(story))
    return {
        "run": story,
        "at": at,
        "progress": progress_of(at, story.progress),
        "stages": story.stages,
        "sql": page.statement("FROM recstore.runs"),
    }


def study(page: Page, name: str, number: int) -> dict[str, Any]:
    page.known(name)
    found, trials = page.store.study(name, number), page.listed(lambda: page.store.studies(name, number))
    curves = {}
    for trial in sorted(trials.rows, key=lambda one: -(one.value or 0))[:6]:
        curves[f"trial {trial.number}"] = [
            (point["iteration"], value)
            for point in trial.curve
            if (value := _validation(point, found.metric)) is not None
        ]
    if found.state == "running":
        g.reload = RELOAD
    names = list(dict.fromkeys(key for trial in trials.rows for key in trial.parameters))
    return {"study": found, "trials": trials, "curves": drawing(curves, "iteration {x:g}: {y:.4f}"), "names": names}


def _validation(point: dict[str, Any], metric: str) -> float | None:
    value = point.get("validation")
    value = value.get(metric) if isinstance(value, dict) else value
    return None if value is None else float(value)


def _searched(page: Page, known: Known, text: str) -> Listed:
    """Return the items whose titles have all words, or the item with this id; without words the most popular ones."""
    if not text:
        return page.listed(lambda: page.store.popular(known.name, k=FOUND), known=known)
    empty = f"No item of the last training matches {text!r}."
    if known.definition.titles:
        found = page.asked(questions.searched(known, text.split(), FOUND), empty)
        if found.rows or found.refused:
            return found
    return page.asked(questions.popularity(known, known.item_type.parse(text, "item id")), empty)


def _asked() -> str:
    """Return the words of a search."""
    return request.args.get("q", "").replace("\0", "").strip()


def items(page: Page, name: str) -> dict[str, Any]:
    known = page.known(name)
    questions.require_live(page.opened, known, K)
    text = _asked()
    try:
        found = _searched(page, known, text)
    except InvalidInput:
        found = Listed("", empty=f"No title has {text!r}.")
    return {"q": text, "found": found, "titles": known.definition.titles}


def item(page: Page, name: str) -> dict[str, Any]:
    known, wanted = page.known(name), request.args.get("id", "")
    one = known.item_type.parse(wanted, "item id")
    questions.require_live(page.opened, known, K)
    pictured = questions.pictures(known, one)
    described = page.asked(pictured) if pictured else Listed("")
    return {
        "id": wanted,
        "described": described,
        "picture": next((_picture(row) for row in described.rows), None),
        "title": next((row["title"] for row in described.rows), None) or wanted,
        "popularity": page.asked(questions.popularity(known, one), "This item was not in the last training."),
        "similar": page.listed(lambda: page.store.similar(name, one, k=K), known=known),
        "together": page.listed(lambda: page.store.recommend(name, items=[one], k=K), known=known),
    }


def _picture(row: dict[str, Any]) -> str | None:
    """Return the address of a picture; nothing else than http, which could be a script."""
    address = row["picture"] or ""
    return address if address.startswith(("http://", "https://")) else None


def user(page: Page, name: str) -> dict[str, Any]:
    known, wanted = page.known(name), request.args.get("id", "").strip()
    questions.require_live(page.opened, known, K)
    if not wanted:
        return {"id": "", "users": page.asked(questions.some_users(known, FOUND), "No user is trained.")}
    one = known.user_type.parse(wanted, "user id")
    because = request.args.get("item", "").strip()
    why = known.item_type.parse(because, "item id") if because else None
    previous = next((one for one in _complete(page, name)[::-1] if one.state != "live"), None)
    return {
        "id": wanted,
        "viewed": page.asked(questions.seen(known, one, K), "This user has viewed nothing."),
        "recommended": page.listed(lambda: page.store.recommend(name, one, k=K), known=known),
        "because": because and _titles(page, known, [why]).get(why, because),
        "explained": because and page.listed(lambda: page.store.explain(name, one, why, k=K), known=known),
        "previous": previous,
        "before": previous and _of_generation(page, known, previous.generation, one),
        "unlike": UNLIKE[previous.state] if previous else "",
    }


def _titles(page: Page, known: Known, ids: Sequence[Any]) -> dict[Any, str]:
    """Return the titles of these items; none where this role may not read them, which the lists say."""
    with suppress(psycopg.Error), page.opened.transaction():
        return questions.titles_of(page.opened, known, ids)
    return {}


def _complete(page: Page, name: str) -> list[Generation]:
    return [one for one in page.store.generations(name) if one.state in COMPLETE]


def _of_generation(page: Page, known: Known, number: int, one: Any) -> Listed:
    """Ask a generation that is not live for a user's recommendations."""
    with page.generation(number):
        listed = page.listed(lambda: page.store.recommend(known.name, one, k=K), known=known)
    listed.sql = f"BEGIN;\nSET LOCAL recstore.generation = '{number}';\n{listed.sql}\nCOMMIT;"
    return listed


def basket(page: Page, name: str) -> dict[str, Any]:
    known = page.known(name)
    questions.require_live(page.opened, known, K)
    chosen = list(dict.fromkeys(one for one in request.args.getlist("item") if one))[:50]
    parsed = [known.item_type.parse(one, "item id") for one in chosen]
    titles = _titles(page, known, parsed)
    text = _asked()
    return {
        "q": text,
        "chosen": [(one, titles.get(id_, one)) for one, id_ in zip(chosen, parsed, strict=True)],
        "found": _searched(page, known, text),
        "recommended": chosen and page.listed(lambda: page.store.recommend(name, items=parsed, k=K), known=known),
    }


def compare(page: Page, name: str) -> dict[str, Any]:
    known = page.known(name)
    questions.require_live(page.opened, known, K)
    complete = _complete(page, name)
    numbers = [one.generation for one in complete]
    a, b = (request.args.get(side, type=int) for side in "ab")
    if len(numbers) > 1:
        a, b = a or numbers[-2], b or numbers[-1]
    compared = None
    if a and b and a != b:
        compared = page.listed(lambda: [page.store.compare(name, a, b, k=K, users=USERS)], known=known)
    by_number = {one.generation: one for one in complete}
    return {
        "a": a,
        "b": b,
        "complete": complete,
        "compared": compared,
        "metrics": _metrics(complete),
        "summary": page.statement("compare_generations("),
        "one": by_number.get(a or 0),
        "other": by_number.get(b or 0),
    }


def _ago(moment: datetime | None) -> str:
    return f"{age(datetime.now(UTC) - moment)} ago" if moment else ""


def _stamp(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else ""


def _number(value: Any) -> str:
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.3f}"
    return "" if value is None else f"{value:,.0f}"


FILTERS: dict[str, Callable[..., str]] = {
    "ago": _ago,
    "stamp": _stamp,
    "number": _number,
    "duration": duration,
    "sentence": sentence,
    "cron": schedule.words,
    "line": lambda text: printable(" ".join(str(text).split())),
}
