"""Describe recommenders and change them: what the API, the dry runs and an adopted search share, above `registry`."""

import dataclasses
from typing import Any

from recstore import registry
from recstore.config import Settings
from recstore.definition import Definition, Lists
from recstore.errors import InvalidInput
from recstore.operations import jobs
from recstore.postgres.connection import Connection, plain_errors
from recstore.publication import generations as publication
from recstore.runs import Reporter
from recstore.source import candidates, inspection
from recstore.source.plans import index_statement
from recstore.sql import queries
from recstore.sql.objects import Registered

Row = dict[str, Any]

SUBSCRIBERS_LACK_THEM = (
    "it would send every generation's tables to subscribers that lack them,"
    " and the application's own replication would stop"
)
"""Effect of a publication FOR ALL TABLES, for the messages of `create` and `doctor`."""


def described(opened: Connection, recommender: Registered) -> Row:
    """Return types, definition, the live generation (None before the first), those that wait, the last error and the next
    retrain."""
    rows = generations(opened, recommender.name)
    overview = registry.overview_of(opened, recommender.name)
    return {
        "name": recommender.name,
        "user_type": recommender.user_type.value,
        "item_type": recommender.item_type.value,
        "vector_type": recommender.vector_type,
        "dimensions": recommender.dimensions,
        "definition": recommender.definition.model_dump(mode="json"),
        "live": next((row for row in rows if row["state"] == "live"), None),
        "last_error": overview["last_error"],
        "next_retrain": registry.next_retrain(overview),
        "waiting": [row for row in rows if row["state"] in ("ready", "withheld")],
    }


def generations(opened: Connection, name: str, *, pruned: bool = False) -> list[Row]:
    """Return the recommender's rows of recstore.generations, oldest first, with `pruned` also those without vectors.

    Raises RecommenderNotFound.
    """
    rows = queries.rows(opened, "watch_generations", recommender=name, pruned=pruned)
    if not rows:
        registry.known(opened, name)
    return rows


def publications_of_everything(opened: Connection) -> list[str]:
    """Return the publications FOR ALL TABLES, which would replicate every new generation."""
    rows = opened.execute("SELECT p.pubname FROM pg_publication p WHERE p.puballtables ORDER BY p.pubname").fetchall()
    return [row["pubname"] for row in rows]


def create(opened: Connection, settings: Settings, name: str, definition: Definition) -> Registered:
    """Register a recommender and attach its first, empty generation; nothing is read or trained.

    Raises InvalidName, SourceInvalid, PermissionDenied, as `check_lists` and others.
    """
    check_lists(opened, name, definition)
    recommender = registry.create(opened, name, definition)
    with plain_errors(f"creating {name!r}", opened):
        publication.attach(opened, settings, recommender)
    return recommender


def check_lists(opened: Connection, name: str, definition: Definition, before: Registered | None = None) -> None:
    """Check the tables of lists that the recommender did not name `before`, as the job that writes them will.

    Raises InvalidInput, ListTableRefused, PermissionDenied.
    """
    named, known = definition.lists, before.definition.lists if before else Lists()
    if (named.recommend_into, named.similar_into) == (known.recommend_into, known.similar_into):
        return
    from recstore.lists import shapes, tables  # with all that computes

    typed = before or inspection.inspect(opened, definition.source)
    if named.recommend_into and named.recommend_into != known.recommend_into:
        tables.look_at(opened, name, named.recommend_into, shapes.recommended(typed))
    if named.similar_into and named.similar_into != known.similar_into:
        tables.look_at(opened, name, named.similar_into, shapes.similar(typed))


def alter(
    opened: Connection,
    url: str,
    settings: Settings,
    recommender: Registered,
    definition: Definition,
    *,
    resize: bool = False,
    readers_may_fail: bool = False,
    reporter: Reporter | None = None,
) -> Registered:
    """Give a recommender another definition for the next training; other candidates take effect at once. Commits.

    With `resize`, make room for more factors than it has dimensions for. Candidates that a granted role cannot read are
    refused unless `readers_may_fail`. Raises InvalidInput, AlteredMeanwhile, ReadersLackRights.
    """
    check_lists(opened, recommender.name, definition, recommender)
    if needs_resize(opened, recommender, definition, resize):
        jobs.resize(url, settings, recommender.name, definition.hyperparameters.factors or 0, reporter=reporter)
        resized = registry.get(opened, recommender.name)
        recommender = dataclasses.replace(resized, definition=recommender.definition)  # `alter` compares it
    altered = registry.alter(opened, settings, recommender, definition, readers_may_fail=readers_may_fail)
    if reporter and definition.candidates.given and definition.candidates != recommender.definition.candidates:
        found = candidates.eligible(opened, altered, altered.relation("item_vectors"), settings.source_timeout)
        if found.items and not found.eligible:
            reporter.warn(
                f"None of the live generation's {found.items:,} items is a candidate, so every list of items is empty. If that"
                f" is not intended: recstore alter {altered.name} --candidates none"
            )
    return altered


def exclusions_words(opened: Connection, recommender: Registered) -> str:
    """Describe what recommend() leaves out for a user besides seen items, and whether an index finds it."""
    if recommender.definition.exclusions.query is None:
        return "no user has exclusions"
    words = "recommend() leaves out each user's exclusions, from now on"
    if candidates.looked_up_by_index(opened, recommender, "exclusions", "user_id"):
        return words
    statement = index_statement(opened, recommender.name, "exclusions", "user_id")
    return f"{words}. No index finds those of one user" + (f": have the owner run {statement}" if statement else "")


def candidates_words(opened: Connection, settings: Settings, recommender: Registered) -> str:
    """Describe which items are recommended: how many are candidates now, and whether an index finds one of them."""
    if not recommender.definition.candidates.given:
        return "every item may be recommended"
    found = candidates.eligible(opened, recommender, recommender.relation("item_vectors"), settings.source_timeout)
    words = "only candidates are recommended, from now on"
    if found.items:
        words += f"; now these are {found.eligible:,} of the live {found.items:,} items"
    if candidates.looked_up_by_index(opened, recommender):
        return words
    statement = index_statement(opened, recommender.name, "candidates", "item_id")
    return (
        f"{words}. Whether one item is a candidate is not found through an index, so lists of items come by exact scan: "
        + (
            f"have the owner run {statement.rstrip(';')}"
            if statement
            else "give them by a query that an index can serve"
        )
        + f", then run: recstore reindex {recommender.name}"
    )


def needs_resize(opened: Connection, recommender: Registered, definition: Definition, resize: bool) -> bool:
    """Return whether the definition needs more dimensions, or with `resize` fewer. Raises InvalidInput without `resize`."""
    if definition.storage != recommender.definition.storage:
        raise InvalidInput(
            "The vectors' type and dimensions are fixed at creation; --factors with --resize changes the dimensions."
        )
    factors = definition.hyperparameters.factors or 0
    if factors <= recommender.dimensions:
        return bool(
            resize and factors and registry.storage_for(definition, factors, fixed=False)[1] < recommender.dimensions
        )
    registry.check_definition(opened, recommender, definition)  # a refused definition resizes nothing
    if not resize:
        raise InvalidInput(
            f"{recommender.name!r} has room for {recommender.dimensions} factors, not {factors}. Add --resize to make"
            " more: readers of the views may wait a moment, and the next training is published into the new tables."
        )
    return True
