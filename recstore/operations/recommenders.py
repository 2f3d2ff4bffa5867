"""What is told of a recommender, and changed in it, by the command line and from Python alike: on top of `registry` and
`operations`."""

import dataclasses
from typing import Any

from recstore import registry
from recstore.config import Settings
from recstore.definition import Definition, Lists
from recstore.errors import InvalidInput
from recstore.operations import jobs
from recstore.postgres.connection import Connection
from recstore.registry import next_retrain
from recstore.runs import Reporter
from recstore.source import candidates, inspection
from recstore.source.plans import index_statement
from recstore.sql.objects import Registered

Row = dict[str, Any]

SUBSCRIBERS_LACK_THEM = (
    "it would send every generation's tables to subscribers that lack them,"
    " and the application's own replication would stop"
)
"""What a publication FOR ALL TABLES does; said by `create`, and by `doctor`."""


def described(opened: Connection, recommender: Registered) -> Row:
    """Its types and definition, the live generation's row (None: nothing is live yet), those that wait to go live, the last
    training's error, when it is retrained next."""
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
        "next_retrain": next_retrain(overview),
        "waiting": [row for row in rows if row["state"] == "ready"],
    }


def generations(opened: Connection, name: str, *, pruned: bool = False) -> list[Row]:
    """The recommender's rows of recstore.generations, the oldest first; with `pruned` also those whose vectors are gone.
    Raises RecommenderNotFound."""
    registry.get(opened, name)
    rows = opened.execute(
        "SELECT g.* FROM recstore.generations g WHERE g.recommender = %s ORDER BY g.generation", [name]
    ).fetchall()
    return [row for row in rows if pruned or row["state"] != "pruned"]


def publications_of_everything(opened: Connection) -> list[str]:
    """Publications FOR ALL TABLES: they would carry every new generation to their subscribers, and stop where these lack
    it."""
    rows = opened.execute("SELECT p.pubname FROM pg_publication p WHERE p.puballtables ORDER BY p.pubname").fetchall()
    return [row["pubname"] for row in rows]


def create(opened: Connection, settings: Settings, name: str, definition: Definition) -> Registered:
    """Makes a recommender with its first, empty generation. Raises InvalidName, SourceInvalid, PermissionDenied, and what
    `check_lists` raises, .."""
    check_lists(opened, name, definition)
    return jobs.create(opened, settings, name, definition)


def check_lists(opened: Connection, name: str, definition: Definition, before: Registered | None = None) -> None:
    """Looks at the tables of lists that the recommender did not name `before`, as whoever writes them will. Raises
    InvalidInput, ListTableRefused, PermissionDenied."""
    named, known = definition.lists, before.definition.lists if before else Lists()
    if (named.recommend_into, named.similar_into) == (known.recommend_into, known.similar_into):
        return
    from recstore.lists import shapes, tables  # with all that computes

    typed = before or inspection.inspect(opened, definition.source)
    for into, was, shape in (
        (named.recommend_into, known.recommend_into, shapes.recommended(typed)),
        (named.similar_into, known.similar_into, shapes.similar(typed)),
    ):
        if into is not None and into != was:
            tables.look_at(opened, name, into, shape)


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
    """Gives a recommender another definition, from the next training on; other candidates hold at once. More factors than it
    has dimensions for are refused, or with `resize` made room for; candidates that a granted role may not read are refused
    unless `readers_may_fail`. Commits. Raises InvalidInput, AlteredMeanwhile, ReadersLackRights, .."""
    check_lists(opened, recommender.name, definition, recommender)
    if needs_resize(opened, recommender, definition, resize):
        jobs.resize(url, settings, recommender.name, definition.hyperparameters.factors or 0, reporter=reporter)
        resized = registry.get(opened, recommender.name)
        recommender = dataclasses.replace(
            resized, definition=recommender.definition
        )  # altered meanwhile, it is refused
    altered = registry.alter(opened, settings, recommender, definition, readers_may_fail=readers_may_fail)
    if reporter and definition.candidates.given and definition.candidates != recommender.definition.candidates:
        found = candidates.eligible(opened, altered, altered.relation("item_vectors"))
        if found.items and not found.eligible:
            reporter.warn(
                f"None of the live generation's {found.items:,} items is a candidate, so every list of items is empty. See"
                f" whether that is what you mean, or take it back: recstore alter {altered.name} --candidates none"
            )
    return altered


def candidates_words(opened: Connection, recommender: Registered) -> str:
    """Which items are recommended, in a sentence or two: how many of the live generation's are candidates now, and whether
    asking that reaches an index."""
    if not recommender.definition.candidates.given:
        return "every item may be recommended"
    found = candidates.eligible(opened, recommender, recommender.relation("item_vectors"))
    told = "only candidates are recommended, from now on"
    if found.items:
        told += f"; now these are {found.eligible:,} of the live {found.items:,} items"
    if not candidates.looked_up_by_index(opened, recommender):
        statement = index_statement(opened, recommender.name, "candidates", "item_id")
        told += (
            ". Whether one item is a candidate is not found through an index, so lists of items come by exact scan: "
            + (f"have the owner run {statement}" if statement else "give them by a query that an index can serve,")
            + f" Then: recstore reindex {recommender.name}"
        )
    return told


def needs_resize(opened: Connection, recommender: Registered, definition: Definition, resize: bool) -> bool:
    """Whether there have to be more dimensions for that definition. Raises InvalidInput where `resize` does not allow it."""
    if definition.storage != recommender.definition.storage:
        raise InvalidInput(
            "The vectors' type and dimensions are fixed at creation; more factors make room with --resize."
        )
    factors = definition.hyperparameters.factors or 0
    if factors <= recommender.dimensions:
        return False
    registry.check_definition(opened, recommender, definition)  # a refused definition resizes nothing
    if not resize:
        raise InvalidInput(
            f"{recommender.name!r} has room for {recommender.dimensions} factors, not {factors}. Add --resize to make"
            " more: readers of the views may wait a moment, and the next training is published into the new tables."
        )
    return True
