"""Create, look up, alter, grant and drop recommenders. Their definitions live in Postgres; knows nothing of training."""

import dataclasses
import re
from contextlib import suppress
from datetime import datetime
from typing import Any

from psycopg import errors as pg
from psycopg.types.json import Jsonb

from recstore import schedule
from recstore.config import Settings
from recstore.definition import DEFAULT_FACTORS, MAX_FACTORS, MAX_VECTOR_DIMENSIONS, Definition, Storage
from recstore.errors import (
    AlteredMeanwhile,
    DependentObjects,
    InvalidInput,
    InvalidName,
    PartNotInstalled,
    PermissionDenied,
    ReadersLackRights,
    RecommenderExists,
    RecommenderNotFound,
    SchemaNameTaken,
    TooManyFactors,
    installed_parts,
)
from recstore.postgres.connection import Connection, find_relation, one_line, plain_errors, role_of, with_short_lock
from recstore.postgres.names import quoted
from recstore.source import candidates, inspection, selects
from recstore.sql import objects, queries
from recstore.sql.objects import Registered
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
    default = min(DEFAULT_FACTORS, storage.dimensions or DEFAULT_FACTORS)
    factors = factors or definition.hyperparameters.factors or default
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


def inspect(connection: Connection, definition: Definition) -> tuple[inspection.SourceShape, str]:
    """Return the shape of a definition's source, and the SELECT of its candidates (empty without candidates). Raises
    SourceInvalid, CandidatesInvalid, UnsupportedIdType, PermissionDenied."""
    shape = inspection.inspect(connection, definition.source)
    return shape, candidates.inspect(connection, definition, shape.item_type)


def create(connection: Connection, name: str, definition: Definition) -> Registered:
    """Register a recommender and create its schema, in one transaction. The source is inspected, not read.

    Raises InvalidName, RecommenderExists, SchemaNameTaken, SourceInvalid, UnsupportedIdType, PermissionDenied.
    """
    with plain_errors(f"creating {name!r}", connection):
        check_name(connection, name)
        shape, candidates_select = inspect(connection, definition)
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
                objects.install(connection, registered, shape.select, candidates_select)
                if candidates_select:
                    candidates.ask_first(connection, registered, candidates_select)
        except pg.UniqueViolation as error:
            ours = error.diag.schema_name == "recstore_private"
            raise (RecommenderExists if ours else SchemaNameTaken)(name=name) from None
        except pg.DuplicateSchema:
            raise SchemaNameTaken(name=name) from None
        except pg.InsufficientPrivilege as error:
            role, database = role_of(connection), connection.info.dbname
            remedy = "Have its owner grant that."
            (may,) = connection.execute("SELECT has_database_privilege(current_database(), 'CREATE') AS create_schema")
            if not may["create_schema"]:
                remedy = f"Have an administrator run: GRANT CREATE ON DATABASE {quoted(database)} TO {quoted(role)};"
            elif grant := selects.missing_grant(connection, error):
                remedy = f"Have its owner run: {grant} TO {quoted(role)};"
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
    for column in (titles.item, titles.title):
        if column not in row["columns"]:
            raise InvalidInput(
                f"{titles.table} has no column {column!r} for titles; it has {', '.join(sorted(row['columns']))}."
            )


def get(connection: Connection, name: str) -> Registered:
    """Return the recommender with this name. Raises RecommenderNotFound."""
    with plain_errors(f"looking up {name!r}", connection):
        row = queries.row(connection, "select_recommender", name=name)
    if row is None:
        raise RecommenderNotFound(name=name)
    row["definition"] = Definition.model_validate(row["definition"])
    row["user_type"], row["item_type"] = IdType(row["user_type"]), IdType(row["item_type"])
    row.pop("object_digests")
    return Registered(**row)


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


def check_definition(connection: Connection, recommender: Registered, definition: Definition) -> tuple[str, str]:
    """Return the SELECTs of another definition's source and candidates. Raises unless the recommender can have it."""
    factors = definition.hyperparameters.factors or 0
    if factors > MAX_FACTORS:
        raise TooManyFactors(factors=factors, limit=MAX_FACTORS)
    source_select = _source_select(connection, recommender, definition)
    check_names(connection, definition)
    candidates_select = candidates.inspect(connection, definition, recommender.item_type)
    now = recommender.definition
    if candidates_select and (definition.candidates, definition.source) != (now.candidates, now.source):
        candidates.ask_first(connection, recommender, candidates_select)
    return source_select, candidates_select


def _source_select(connection: Connection, recommender: Registered, definition: Definition) -> str:
    shape = inspection.inspect(connection, definition.source)
    if (shape.user_type, shape.item_type) != (recommender.user_type, recommender.item_type):
        raise InvalidInput(
            f"The source's ids are {shape.user_type.value} and {shape.item_type.value}, but {recommender.name!r} has"
            f" {recommender.user_type.value} and {recommender.item_type.value}: cast them in a query, or create another"
            " recommender."
        )
    return shape.select


def selects_of(connection: Connection, recommender: Registered) -> tuple[str, str]:
    """Return the SELECTs that the definition's source and candidates make now. Raises as `check_definition`."""
    definition = recommender.definition
    return (
        _source_select(connection, recommender, definition),
        candidates.inspect(connection, definition, recommender.item_type),
    )


def alter(
    connection: Connection,
    settings: Settings,
    recommender: Registered,
    definition: Definition,
    *,
    readers_may_fail: bool = False,
) -> Registered:
    """Store another definition for the next training. A changed source and changed candidates take effect at once.

    Lists come by exact scan until the next calibration if no index finds the new candidates. Id types and the fixed dimensions
    cannot change here. Raises ReadersLackRights unless every role with access may read the new candidates, or
    `readers_may_fail`; SeenPastPolicies, AlteredMeanwhile, InvalidInput, SourceInvalid, CandidatesInvalid, DependentObjects.
    """
    altered = dataclasses.replace(recommender, definition=definition)
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
            lists_due = [(each.lists.cron, each.schedule.timezone) for each in (definition, before)]
            if lists_due[0] != lists_due[1]:
                queries.run(connection, "restart_lists", **keys)
            old_parents = objects.has_old_parents(connection, recommender)
            changed = objects.replace(connection, altered, objects.render(altered, *selects, old_parents=old_parents))
            if selects[1] and "view candidates" in changed:
                with candidates.tried(connection, altered, selects[1]) as view:
                    missing = {} if readers_may_fail else candidates.readers_lacking(connection, recommender, view)
                    indexed = candidates.looked_up_by_index(connection, altered, view)
                if missing:
                    grants = " ".join(statement for statements in missing.values() for statement in statements)
                    raise ReadersLackRights(name=recommender.name, readers=", ".join(missing), grants=grants)
                if not indexed:
                    queries.run(connection, "scan_exactly", **keys)
            if definition.source.seen == "published":
                inspection.check_policies(connection, altered)

        relations = [recommender.relation(name) for name in ("interactions", "candidates")]
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

    Raises DependentObjects if anything would be lost that is not recstore's, unless `cascade`.
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
        return with_short_lock(
            connection, settings, f"Dropping {recommender.name!r}", recommender.relation("item_vectors"), change
        )


def next_retrain(row: dict[str, Any]) -> datetime | None:
    """Return when the schedule of a row of recstore.status is due, in its zone; in the past if a dispatch is late."""
    return schedule.next_in_zone(row["schedule"], row["timezone"], row["scheduled_at"])


def next_lists(row: dict[str, Any], now: datetime) -> datetime | None:
    """Return when the lists of a row of recstore.status are written next, in the schedule's zone."""
    return schedule.next_in_zone(row["lists_schedule"], row["timezone"], now)
