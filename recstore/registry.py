"""Create, look up, alter, grant and drop recommenders. Their definitions live in Postgres; knows nothing of training."""

import dataclasses
import re
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

from psycopg import errors as pg
from psycopg.types.json import Jsonb

from recstore import schedule
from recstore.config import Settings
from recstore.definition import (
    DEFAULT_FACTORS,
    DEFAULT_RATING_FACTORS,
    MAX_FACTORS,
    MAX_VECTOR_DIMENSIONS,
    Definition,
    Storage,
)
from recstore.errors import (
    AlteredMeanwhile,
    CandidatesInvalid,
    DependentObjects,
    ExclusionsInvalid,
    FallbackInvalid,
    InvalidInput,
    InvalidName,
    PartNotInstalled,
    PermissionDenied,
    ReadersLackRights,
    RecommenderExists,
    RecommenderNotFound,
    SchemaNameTaken,
    SourceInvalid,
    TooManyFactors,
    installed_parts,
)
from recstore.postgres.connection import (
    Connection,
    create_remedy,
    find_relation,
    one_line,
    plain_errors,
    role_of,
    with_short_lock,
)
from recstore.postgres.names import quoted
from recstore.source import candidates, fallback, inspection, selects
from recstore.sql import objects, queries
from recstore.sql.objects import Known, Registered
from recstore.types import IdType

ROOM = 64
"""Multiple that dimensions are rounded up to, so that factors can grow a little later."""


def check_name(connection: Connection, name: str) -> None:
    """Raise InvalidName, RecommenderExists or SchemaNameTaken unless a recommender may have this name."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise InvalidName(name=name, reason="it is not a plain identifier")
    if len(name) > 48:
        raise InvalidName(name=name, reason=f"it is {len(name)} characters long")
    if name.startswith(("pg_", "recstore")):
        raise InvalidName(name=name, reason="names that begin with pg_ or recstore are taken")
    found = queries.one(connection, "name_checks", name=name)
    if found["reserved"]:
        raise InvalidName(name=name, reason="it is a reserved word of SQL")
    if queries.row(connection, "select_recommender", name=name):
        raise RecommenderExists(name=name)
    if found["role_exists"]:
        raise InvalidName(name=name, reason="a role has this name, and would find the views before its own tables")
    if found["schema_exists"]:
        raise SchemaNameTaken(name=name)


def storage_for(definition: Definition, factors: int | None = None, *, fixed: bool = True) -> tuple[str, int]:
    """Return (vector type, dimensions) of a definition; without `fixed`, those that a resize to `factors` gives it.
    Raises TooManyFactors, InvalidInput."""
    half = definition.storage.vector_type == "halfvec"
    storage = definition.storage if fixed else Storage(vector_type="halfvec" if half else None)
    hyperparameters = definition.hyperparameters
    default = DEFAULT_RATING_FACTORS if hyperparameters.explicit else DEFAULT_FACTORS
    default = min(default, (storage.dimensions or MAX_FACTORS) - hyperparameters.bias_factors)
    factors = (factors or hyperparameters.factors or default) + hyperparameters.bias_factors
    largest = max(factors, storage.dimensions or 0)
    if largest > MAX_FACTORS:
        raise TooManyFactors(factors=largest, limit=MAX_FACTORS)
    if storage.dimensions is not None and storage.dimensions < factors:
        raise InvalidInput(f"{factors} factors do not fit {storage.dimensions} dimensions: raise the dimensions.")
    dimensions = storage.dimensions or min(-(-factors // ROOM) * ROOM, MAX_FACTORS)
    vector_type = storage.vector_type or ("vector" if dimensions <= MAX_VECTOR_DIMENSIONS else "halfvec")
    if vector_type == "vector" and dimensions > MAX_VECTOR_DIMENSIONS:
        raise InvalidInput(
            f"{dimensions} dimensions need the vector type halfvec: two single-precision vectors of more than"
            f" {MAX_VECTOR_DIMENSIONS} do not fit a page."
        )
    return vector_type, dimensions


Selects = tuple[str, str, str, str]
"""SELECTs of a definition's source, candidates, fallback and exclusions, in the order of `objects.render`; empty where there is
none."""


def inspect(
    connection: Connection, definition: Definition, recommender: Registered | None = None
) -> tuple[inspection.SourceShape, Selects]:
    """Return the shape of a definition's source, and its SELECTs. Raises SourceInvalid, CandidatesInvalid, FallbackInvalid,
    ExclusionsInvalid, UnsupportedIdType, PermissionDenied, InvalidInput for other id types than a `recommender` has."""
    shape = inspection.inspect(connection, definition.source)
    if recommender and (shape.user_type, shape.item_type) != (recommender.user_type, recommender.item_type):
        raise InvalidInput(
            f"The source's ids are {shape.user_type.value} and {shape.item_type.value}, but {recommender.name!r} has"
            f" {recommender.user_type.value} and {recommender.item_type.value}: cast them in a query, or create another"
            " recommender."
        )
    for needed, setting in (
        (definition.confidence.half_life is not None, "--half-life"),
        (definition.fallback.counts_times, "the fallback, by --fallback-window, --fallback-half-life or trending,"),
    ):
        if needed and not shape.has_last_at:
            raise SourceInvalid(
                reason=f"it has no column last_at, which {setting} needs",
                remedy="Name the column of times with --last-at, or select it AS last_at in the query.",
            )
    return shape, (
        shape.select,
        candidates.inspect(connection, definition, shape.item_type),
        fallback.inspect(connection, definition, shape.user_type, shape.item_type),
        candidates.inspect_exclusions(connection, definition, shape.user_type, shape.item_type),
    )


def _ask_first(connection: Connection, recommender: Registered, selects: Selects) -> None:
    for select, invalid in zip(selects[1:], (CandidatesInvalid, FallbackInvalid, ExclusionsInvalid), strict=True):
        if select:
            candidates.ask_first(connection, recommender, select, invalid)


def create(connection: Connection, name: str, definition: Definition) -> Registered:
    """Register a recommender and create its schema, in one transaction. The source is inspected, not read.

    Raises InvalidName, RecommenderExists, SchemaNameTaken, SourceInvalid, UnsupportedIdType, PermissionDenied.
    """
    with plain_errors(f"creating {name!r}", connection):
        check_name(connection, name)
        shape, found = inspect(connection, definition)
        check_names(connection, definition)
        vector_type, dimensions = storage_for(definition)
        try:
            with connection.transaction():
                row = queries.one(
                    connection,
                    "insert_recommender",
                    name=name,
                    definition=Jsonb(definition.model_dump(mode="json")),
                    user_type=shape.user_type.value,
                    item_type=shape.item_type.value,
                    vector_type=vector_type,
                    dimensions=dimensions,
                    objects_version=objects.OBJECTS_VERSION,
                )
                queries.run(connection, "insert_pointer", recommender_id=row["id"])
                registered = get(connection, name)
                connection.execute(f"CREATE SCHEMA {registered.schema}")
                connection.execute(f"COMMENT ON SCHEMA {registered.schema} IS 'Recommendations by recstore: {name}.'")
                objects.install(connection, registered, *found)
                _ask_first(connection, registered, found)
        except pg.UniqueViolation as error:
            ours = error.diag.schema_name == "recstore_private"
            raise (RecommenderExists if ours else SchemaNameTaken)(name=name) from None
        except pg.DuplicateSchema:
            raise SchemaNameTaken(name=name) from None
        except pg.InsufficientPrivilege as error:
            role, grant = role_of(connection), selects.missing_grant(connection, error)
            remedy = f"Have its owner run: {grant} TO {quoted(role)};" if grant else "Have its owner grant that."
            remedy = create_remedy(connection) or remedy
            raise PermissionDenied(role=role, reason=one_line(error), remedy=remedy) from None
        return get(connection, name)


def check_names(connection: Connection, definition: Definition) -> None:
    """Raise InvalidInput unless the trainer, the table of titles and its columns exist; PermissionDenied for the table."""
    with suppress(PartNotInstalled), installed_parts():  # where nothing trains, the first training checks the name
        from recstore.model.trainers import trainer  # with NumPy and SciPy, a third of a second

        trainer(definition.hyperparameters.trainer)
    titles = definition.titles
    if titles is None:
        return
    try:
        row = queries.row(connection, "readable_table", table=find_relation(connection, titles.table))
    except (pg.SyntaxError, pg.InvalidName, pg.InsufficientPrivilege) as error:
        raise InvalidInput(f"The titles' table {titles.table!r} cannot be looked up: {one_line(error)}.") from None
    if row is None:
        raise InvalidInput(f"The titles' table {titles.table!r} does not exist.")
    if not row["readable"]:
        role = role_of(connection)
        remedy = f"Have the owner run: GRANT SELECT ON {titles.table} TO {quoted(role)};"
        raise PermissionDenied(role=role, reason=f"it cannot read the titles in {titles.table}", remedy=remedy)
    for column in (titles.item, titles.title, titles.picture):
        if column is not None and column not in row["columns"]:
            raise InvalidInput(
                f"{titles.table} has no column {column!r} for titles; it has {', '.join(sorted(row['columns']))}."
            )


def get(connection: Connection, name: str) -> Registered:
    """Return the recommender with this name. Raises RecommenderNotFound."""
    with plain_errors(f"looking up {name!r}", connection):
        row = queries.row(connection, "select_recommender", name=name)
    if row is None:
        raise RecommenderNotFound(name=name)
    row.pop("object_digests")
    return Registered(**row | _typed(row))


def known(connection: Connection, name: str) -> Known:
    """Return the recommender with this name, for a role that reads recstore's views only. Raises RecommenderNotFound."""
    row = queries.row(connection, "known_recommender", recommender=name)
    if row is None:
        raise RecommenderNotFound(name=name)
    return Known(**row | _typed(row))


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    definition = Definition.model_validate(row["definition"])
    return {"definition": definition, "user_type": IdType(row["user_type"]), "item_type": IdType(row["item_type"])}


def all_registered(connection: Connection) -> list[Registered]:
    names = queries.rows(connection, "select_recommender_names")
    return [get(connection, row["name"]) for row in names]


def overview(connection: Connection, name: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of recstore.status with each definition: of all recommenders, or of one."""
    with plain_errors("listing recommenders"):
        return queries.rows(connection, "select_recommenders", name=name)


def overview_of(connection: Connection, name: str) -> dict[str, Any]:
    """Return that row of one recommender. Raises RecommenderNotFound."""
    rows = overview(connection, name)
    if not rows:
        raise RecommenderNotFound(name=name)
    return rows[0]


def check_definition(connection: Connection, recommender: Registered, definition: Definition) -> Selects:
    """Return the SELECTs of another definition. Raises unless the recommender can have it."""
    factors = (definition.hyperparameters.factors or 0) + definition.hyperparameters.bias_factors
    if factors > MAX_FACTORS:
        raise TooManyFactors(factors=factors, limit=MAX_FACTORS)
    if definition.source.explicit != recommender.definition.source.explicit:
        raise InvalidInput(
            f"The feedback of {recommender.name!r} is {recommender.definition.source.feedback} and stays so: a rating and a"
            " number of views have other functions. Create another recommender."
        )
    _, found = inspect(connection, definition, recommender)
    check_names(connection, definition)
    now = recommender.definition
    written, present = ((d.candidates, d.fallback.query, d.exclusions, d.source) for d in (definition, now))
    if written != present:
        _ask_first(connection, recommender, found)
    return found


def selects_of(connection: Connection, recommender: Registered) -> Selects:
    """Return the SELECTs that the definition makes now. Raises as `check_definition`."""
    return inspect(connection, recommender.definition, recommender)[1]


def alter(
    connection: Connection,
    settings: Settings,
    recommender: Registered,
    definition: Definition,
    *,
    readers_may_fail: bool = False,
) -> Registered:
    """Store another definition for the next training. A changed source and changed candidates take effect at once.

    So do a changed fallback and exclusions. Lists come by exact scan until the next calibration if no index finds the new
    candidates. Id types and the fixed dimensions cannot change here. Raises ReadersLackRights unless every role with access may
    read the new candidates, the new exclusions and what the new fallback reads, or `readers_may_fail`; SeenPastPolicies,
    AlteredMeanwhile, InvalidInput, SourceInvalid, CandidatesInvalid, FallbackInvalid, ExclusionsInvalid, DependentObjects.
    """
    altered = dataclasses.replace(recommender, definition=definition)

    def check_readers(part: str, missing: dict[str, list[str]]) -> None:
        if missing and not readers_may_fail:
            grants = " ".join(statement for statements in missing.values() for statement in statements)
            raise ReadersLackRights(name=recommender.name, part=part, readers=", ".join(missing), grants=grants)

    with plain_errors(f"altering {recommender.name!r}", connection):
        selects = check_definition(connection, recommender, definition)

        def change() -> None:
            keys = {"recommender_id": recommender.id, "definition": Jsonb(definition.model_dump(mode="json"))}
            queries.run(connection, "lock_recommender", **keys)
            found, before = get(connection, recommender.name), recommender.definition
            if dataclasses.replace(found, objects_version=recommender.objects_version) != recommender:
                raise AlteredMeanwhile(name=recommender.name)
            queries.run(connection, "update_definition", **keys)
            if definition.schedule != before.schedule:  # a new schedule has missed nothing
                queries.run(connection, "restart_schedule", **keys)
            for part in ("refresh", "lists"):
                due = [(getattr(each, part).cron, each.schedule.timezone) for each in (definition, before)]
                if due[0] != due[1]:
                    queries.run(connection, f"restart_{part}", **keys)
            old_parents = objects.has_old_parents(connection, recommender)
            changed = objects.replace(connection, altered, objects.render(altered, *selects, old_parents=old_parents))
            if selects[1] and "view candidates" in changed:
                with candidates.tried(connection, altered, selects[1]) as view:
                    check_readers("candidates", candidates.readers_lacking(connection, recommender, view))
                    indexed = candidates.looked_up_by_index(connection, altered, view)
                if not indexed:
                    queries.run(connection, "scan_exactly", **keys)
            if definition.fallback != before.fallback:
                source_too = definition.reads_source and not before.reads_source
                for view in ["_fallback"] + ["interactions"] * source_too:
                    missing = candidates.readers_lacking(connection, recommender, view, "user_vectors")
                    check_readers("fallback", missing)
            if definition.exclusions != before.exclusions:
                missing = candidates.readers_lacking(connection, recommender, "exclusions", "user_vectors")
                check_readers("exclusions", missing)
            if definition.source.seen == "published":
                inspection.check_policies(connection, altered)

        relations = [recommender.relation(name) for name in objects.CONFIGURED]
        with_short_lock(connection, settings, f"Altering {recommender.name!r}", relations, change)
        return get(connection, recommender.name)


def dependents(connection: Connection, recommender: Registered) -> list[str]:
    """Return descriptions of what would be lost with the recommender's schema and is not recstore's."""
    known = [name.split()[1] for name in objects.render(recommender, "")]
    keys = {"quoted": recommender.schema, "known": known}
    rows = queries.rows(connection, "schema_dependents", **keys)
    return [row["object"] for row in rows]


def drop(connection: Connection, settings: Settings, recommender: Registered, *, cascade: bool = False) -> list[str]:
    """Remove the schema, its generations and its rows in one transaction; return what else was dropped.

    Raises SchemaGone for a renamed schema, DependentObjects if anything would be lost that is not recstore's, unless `cascade`.
    """

    def change() -> list[str]:
        queries.run(connection, "delete_recommender", recommender_id=recommender.id)
        found = dependents(connection, recommender)
        if found and not cascade:
            raise DependentObjects(
                what=f"{recommender.name!r}",
                action="dropped",
                objects=", ".join(found),
                remedy="Drop or change those first, or add --cascade to drop them too; nothing was changed.",
            )
        connection.execute(f"DROP SCHEMA IF EXISTS {recommender.schema} CASCADE")
        return found

    with plain_errors(f"dropping {recommender.name!r}", connection):
        objects.check_schema(connection, recommender)
        return with_short_lock(
            connection, settings, f"Dropping {recommender.name!r}", recommender.relation("item_vectors"), change
        )


def next_retrain(row: dict[str, Any]) -> datetime | None:
    """Return when the schedule of a row of recstore.status is due, in its zone; in the past if a dispatch is late."""
    return schedule.next_in_zone(row["schedule"], row["timezone"], row["scheduled_at"])


def next_of(job: Literal["lists", "refresh"], row: dict[str, Any], now: datetime) -> datetime | None:
    """Return when the lists of a row of recstore.status are written next, or its refresh is due, in the schedule's zone."""
    return schedule.next_in_zone(row[f"{job}_schedule"], row["timezone"], now)
