"""Render, install and upgrade the objects of one recommender's schema, from the templates in `sql/objects/`.

A function is replaced in place, or dropped and recreated if its signature changed; a view only if its definition changed, by the
stored digests. Nothing is dropped with CASCADE.
"""

import dataclasses
import hashlib
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import errors as pg
from psycopg.types.json import Jsonb

from recstore.config import Settings
from recstore.definition import Definition
from recstore.errors import DependentObjects, RecommenderNotFound, SchemaGone
from recstore.postgres.connection import Connection, application_path, one_line, with_short_lock
from recstore.postgres.names import quoted
from recstore.sql import queries
from recstore.types import MAX_ID_BYTES, IdType

OBJECTS_VERSION = 6
"""Version of `sql/objects/`, raised with every change. `recstore db upgrade` brings older recommenders to it."""

SEEN = "_seen_published"
"""Function that reads published seen items with its owner's rights."""

FORGET = "forget_user"
"""Function that erases a user with its owner's rights."""

LISTS_MARK = "Made by recstore: {command} of {name},"
"""Start of the comment on a table of lists: the same lists may replace it, and users are erased from it."""

OLD_PARENTS = {"_items": "_items_old", "_users": "_users_old"}
"""Parent -> its name after a resize, as the parent of generations with the former dimensions, until those are pruned."""

VECTOR_ROUNDING = {"vector": 1e-4, "halfvec": 1e-3}
"""Distance of unit vectors, and relative difference of lengths, that come from rounding alone (docs/decisions/0031)."""

OUTER_VIEWS = ("item_vectors", "user_vectors")
"""Views that always read `_generation`. The view candidates does if the definition has no candidates."""

NUMERIC_VALUE = "pg_typeof(+i.value) = 'numeric'::regtype"
"""Condition that the source's value is numeric, a domain over it included."""

CONFIGURED = ("interactions", "candidates", "_fallback", "exclusions")
"""Views whose SELECT is the application's, so that its names are found under the application's search_path."""


@dataclass(frozen=True)
class Known:
    """A recommender as readers know it, from the view recstore.recommenders."""

    name: str
    definition: Definition
    user_type: IdType
    item_type: IdType

    @property
    def schema(self) -> str:
        """Return the schema, quoted."""
        return quoted(self.name)

    def relation(self, name: str) -> str:
        """Return a relation of the schema, quoted."""
        return f"{self.schema}.{quoted(name)}"


@dataclass(frozen=True)
class Registered(Known):
    """The row of a recommender."""

    id: int
    vector_type: str
    dimensions: int
    vector_schema: str
    objects_version: int
    held_out_key: UUID

    @property
    def vector(self) -> str:
        """Return the vector type, quoted, with pgvector's schema."""
        return f"{quoted(self.vector_schema)}.{self.vector_type}"

    def parents(self) -> list[str]:
        return [self.relation(name) for name in OLD_PARENTS]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def render(
    recommender: Registered,
    source_select: str,
    candidates_select: str = "",
    fallback_select: str = "",
    exclusions_select: str = "",
    *,
    old_parents: bool = False,
) -> dict[str, str]:
    """Return object name ("view item_vectors") -> its SQL. A SELECT that the definition does not have is empty. With
    `old_parents` the views read the old parents too, during a resize."""
    eligible, looked_up = _eligible(recommender)
    vectors = {"item": ("item_id", "embedding", "preference"), "user": ("user_id", "preference")}
    others = {"item": ("length", "users", "views"), "user": ("length",)}
    values = {
        "schema": recommender.schema,
        "schema_name": recommender.name,
        "recommender_id": str(recommender.id),
        "extension": quoted(recommender.vector_schema),
        "vector": recommender.vector,
        "dimensions": str(recommender.dimensions),
        "longest_id": str(MAX_ID_BYTES),
        "lists_mark": LISTS_MARK.format(command="recommend-all", name=recommender.name),
        "source_select": source_select,
        "candidates_select": candidates_select or _live_select(recommender, "_items", ("item_id",), (), old_parents),
        "fallback_select": fallback_select or _no_fallback(recommender),
        "exclusions_select": exclusions_select
        or f"SELECT NULL::{recommender.user_type.value} AS user_id, NULL::{recommender.item_type.value} AS item_id WHERE false",
        "eligible": eligible,
        "above": "0" if recommender.definition.source.positive else "'-Infinity'",
        "seen": f"SELECT i.item_id FROM {recommender.schema}.interactions i WHERE i.user_id = wanted"  # noqa: S608
        f" AND i.item_id IS NOT NULL AND {counts_as_seen(recommender.definition)}",
        "fresh": str(recommender.definition.refresh.fresh).lower(),
        "vector_rounding": f"{VECTOR_ROUNDING[recommender.vector_type]}",
    }
    values |= _scores(recommender) | _falling_back(recommender.definition)
    for one, kind in (("user", recommender.user_type), ("item", recommender.item_type)):
        values |= {
            f"{one}_type": kind.value,
            f"{one}_parameter": kind.parameter_sql,
            f"{one}_collate": ' COLLATE "C"' if kind is IdType.TEXT else "",
            f"{one}_default_collate": ' COLLATE "default"' if kind is IdType.TEXT else "",
            f"{one}_storage": "MAIN" if kind is IdType.TEXT else "PLAIN",
            f"{one}_select": _live_select(recommender, f"_{one}s", vectors[one], others[one], old_parents),
        }
    among_candidates = str(recommender.definition.candidates.given).lower()
    sides = {
        "item": {"looked_up": looked_up, "joined": eligible, "among_candidates": among_candidates},
        "user": {"looked_up": "", "joined": "", "among_candidates": "false"},
    }
    for one, side in sides.items():
        side |= {"one": one, "side": f"{one}s", "id": f"{one}_id"}
        side |= {"collate": values[f"{one}_collate"], "id_type": values[f"{one}_type"]}
    values["item_fits"] = recommender.item_type.fits_sql
    hidden = (
        "SELECT e.item_id::{item_type} FROM {schema}.exclusions e WHERE e.user_id = wanted AND e.item_id {item_fits}"
    )
    excludes = recommender.definition.exclusions.query is not None
    values["of_exclusions"] = queries.fill(f" || ARRAY({hidden})", values) if excludes else ""
    for array in ("item_ids", "exclude_items"):  # without what is no item's id
        template = f"ARRAY(SELECT e.id::{{item_type}} FROM unnest({array}) e (id) WHERE e.id {{item_fits}})"  # noqa: S608
        values[f"of_{array}"] = queries.fill(template, values)
    rendered: dict[str, str] = {}
    for file in (
        "tables",
        "types",
        "views",
        "nearest",
        "fold_in",
        "fallback",
        "functions",
        "people",
        "compare",
        "erasing",
    ):
        for name, template in queries.load(f"objects/{file}.sql").items():
            if file == "nearest":
                rendered |= {queries.fill(name, side): queries.fill(template, values | side) for side in sides.values()}
            else:
                text = queries.fill(template, values)
                rendered[name] = text + (_taking_text(text) if name.startswith("function") else "")
    return rendered


def _taking_text(function: str) -> str:
    """Return a public function once more, with the uuids as text, which many clients send; empty if it takes no uuid, or only by
    default, since calls without it would be ambiguous."""
    found = re.search(r"FUNCTION (\S+\.[a-z]\w*)\(([^()]*)\)\nRETURNS (.+)\n", function)
    if found is None:
        return ""
    name, parameters, result = found.groups()
    each = [re.fullmatch(r"(\S+) (.+?)( DEFAULT .+)?", one.strip()) for one in parameters.split(",") if one.strip()]
    parts = [one.groups() for one in each if one]
    if not any(kind.startswith("uuid") and not default for _, kind, default in parts):
        return ""
    given = ", ".join(
        f"${n}::{kind}" if kind.startswith("uuid") else f"${n}" for n, (_, kind, _) in enumerate(parts, 1)
    )
    volatility = "VOLATILE" if "\nVOLATILE\n" in function else "STABLE"
    returned = "* FROM " if result.startswith("SETOF") else ""
    as_text = [(arg, kind.replace("uuid", "text"), default or "") for arg, kind, default in parts]
    # a literal '{..}' could be an array of either: only one of text is preferred to both
    literal = [
        (arg, "text", "") if kind == "uuid[]" and not default else text
        for (arg, kind, default), text in zip(parts, as_text, strict=True)
    ]
    return "".join(
        f"""
CREATE OR REPLACE FUNCTION {name}({", ".join(f"{arg} {kind}{default}" for arg, kind, default in taken)})
RETURNS {result}
LANGUAGE sql
{volatility}
PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT {returned}{name}({given})
$function$;
COMMENT ON FUNCTION {name}({", ".join(kind for _, kind, _ in taken)}) IS 'The same with uuids as text.';
"""
        for taken in ([as_text] if literal == as_text else [as_text, literal])
    )


def counts_as_seen(definition: Definition) -> str:
    """Return the condition that row i of the source is of a seen item."""
    if definition.source.explicit:
        return "i.value IS NOT NULL"
    return "i.value <> 0" if definition.source.negative == "dislike" else "i.value > 0"


IMPLICIT = {
    "rated": "false",
    "of_ratings": "NULL",
    "score": "",
    "in_range": "",
    "unit": "",
    "score_of_row": "r.score",
    "score_of_user": "-n.distance * v.length * $2",
    "given_weight": "1",
    "given_weights": "sum(w.weight)",
    "views": "sum(i.value)",
    "predicted": "predicted preference",
    "predicted_range": "about 1 for what is liked and 0 for what is not",
    "added_up": "to it",
    "weights_are": "Each weight counts as the value of an interaction; one below 0 is a dislike. Without weights each is 1;"
    " those of a repeated item are added.",
}
"""How SQL makes scores of predicted preferences, and says so in comments, where values are views."""


def _scores(recommender: Registered) -> dict[str, str]:
    """Return the same for either feedback. With explicit feedback a score is the predicted rating: `of_ratings` has the mean, the
    unit, the lowest and the highest rating of the live generation's training."""
    if not recommender.definition.source.explicit:
        return IMPLICIT
    of_weighting = "SELECT ARRAY[r.mean, r.scale_factor, r.lowest, r.highest]"
    columns = "mean float8, scale_factor float8, lowest float8, highest float8"
    rating = "least(greatest({0}[1] + {0}[2] * ({1}), {0}[3]), {0}[4])"
    before, after = rating.format("of_ratings", "|").split("|")
    return {
        "rated": "true",
        "of_ratings": f"({of_weighting} FROM {recommender.schema}._weighting w, jsonb_to_record(w.weighting) r ({columns}))",
        "score": before,
        "in_range": after,
        "unit": "of_ratings[2] * ",
        "score_of_row": rating.format("$7", IMPLICIT["score_of_row"]),
        "score_of_user": rating.format("$3", IMPLICIT["score_of_user"]),
        "given_weight": "of_ratings[4]",
        "given_weights": "avg(w.weight)",
        "views": "count(*)::double precision",
        "predicted": "predicted rating",
        "predicted_range": "within the range of those in training",
        "added_up": "to it, less the mean and the bias of that item",
        "weights_are": "Each weight is a rating. Without weights each is the highest; those of a repeated item are averaged.",
    }


def _falling_back(definition: Definition) -> dict[str, str]:
    """Return the steps and settings of the fallback as SQL."""
    fallback = definition.fallback
    return {
        "steps": f"'{{{','.join(definition.steps)}}}'",
        # within what sums and squares of double precision hold; NaN is above infinity. A cast of numeric may be an error
        "bounded_value": f"sign(i.value)::double precision * CASE WHEN {NUMERIC_VALUE}"
        " THEN least(greatest(abs(i.value::numeric), 1e-30), 1e30)::double precision"
        " ELSE least(greatest(abs(i.value::double precision), 1e-30), 1e30) END",
        "finite_value": f"CASE WHEN {NUMERIC_VALUE} THEN i.value::numeric > '-Infinity' AND i.value::numeric < 'Infinity'"
        " ELSE i.value::double precision > '-Infinity' AND i.value::double precision < 'Infinity' END",
        "folds_in": str("fold_in" in definition.steps).lower(),
        "window": f"'{fallback.window}'" if fallback.window else "NULL",
        "half_life": f"'{fallback.half_life}'" if fallback.half_life else "NULL",
    }


def _no_fallback(recommender: Registered) -> str:
    """Return the SELECT of the view `_fallback` where the definition has no query."""
    user, item = recommender.user_type.value, recommender.item_type.value
    return f"SELECT NULL::{user} AS user_id, NULL::{item} AS item_id, NULL::double precision AS score WHERE false"


def _eligible(recommender: Registered) -> tuple[str, str]:
    """Return the condition that item v is a candidate, joined to a WHERE clause, and looked up for one row at a time."""
    if not recommender.definition.candidates.given:
        return "", ""
    found = f"FROM {recommender.relation('candidates')} c WHERE c.item_id = v.item_id"
    return f" AND EXISTS (SELECT {found})", f" AND (SELECT true {found} LIMIT 1)"


def _live_select(
    recommender: Registered, parent: str, vectors: tuple[str, ...], others: tuple[str, ...], old_parents: bool
) -> str:
    """Return the SELECT of the live generation's rows. The cast drops the dimensions alone, so the index order survives; the
    uncorrelated sub-select lets the planner prune the other partitions at run time."""
    columns = [
        f"v.{vectors[0]}",
        *(f"v.{c}::{recommender.vector} AS {c}" for c in vectors[1:]),
        *(f"v.{c}" for c in others),
    ]
    source = f"{recommender.relation(parent)} v"
    if old_parents:  # filtered outside, or the branches would not be flattened and no index would serve them
        both = "\n    UNION ALL\n".join(
            f"    SELECT v.generation, {', '.join(columns)} FROM {recommender.relation(table)} v"  # noqa: S608
            for table in (parent, OLD_PARENTS[parent])
        )
        source = f"(\n{both}\n) v"
        columns = [f"v.{name}" for name in (*vectors, *others)]
    return (
        f"SELECT {', '.join(columns)}\nFROM {source}\n"  # noqa: S608
        f"WHERE v.generation = (SELECT g.generation FROM {recommender.schema}._generation g)"
    )


def install(connection: Connection, recommender: Registered, *selects: str) -> None:
    """Create every object of a new recommender from its SELECTs, as `render`, in the caller's transaction."""
    rendered = render(recommender, *selects)
    for name, text in rendered.items():
        with _path_of(connection, name.split()[1]):
            connection.execute(text)
    revoke_defaults(connection, recommender.name)
    _store_digests(connection, recommender, {name: digest(text) for name, text in rendered.items()})


def _store_digests(connection: Connection, recommender: Registered, digests: dict[str, str]) -> None:
    queries.run(
        connection,
        "update_objects",
        recommender_id=recommender.id,
        objects_version=OBJECTS_VERSION,
        object_digests=Jsonb(digests),
    )


def upgrade(connection: Connection, settings: Settings, recommender: Registered) -> list[str]:
    """Upgrade a recommender's functions and views to this version; return the names of those replaced."""

    def change() -> list[str]:
        locked = _locked(connection, recommender)
        changed = replace(connection, locked, _own(connection, locked))
        for row in queries.rows(connection, "grants_of_seen_tables", schema=locked.name):  # version 2 granted them
            connection.execute(f"REVOKE ALL ON {row['relation']} FROM {row['grantee']}")
        people = {row["grantee"] for row in grants_on(connection, locked.relation("_users"))}
        (found,) = _functions_named(connection, locked, SEEN)
        for grantee in set(found["grantees"]) - people:  # by ALTER DEFAULT PRIVILEGES
            connection.execute(f"REVOKE ALL ON FUNCTION {found['signature']} FROM {grantee}")
        if f"function {SEEN}" in changed:
            for grantee in people:
                connection.execute(f"GRANT EXECUTE ON FUNCTION {found['signature']} TO {grantee}")
        return changed

    return with_short_lock(
        connection,
        settings,
        f"Upgrading the objects of {recommender.name!r}",
        [recommender.relation(name) for name in (*OUTER_VIEWS, "_generation")],
        change,
    )


def _own(connection: Connection, recommender: Registered) -> dict[str, str]:
    """Return the objects whose text is recstore's own, as `render` does."""
    rendered = render(recommender, "", old_parents=has_old_parents(connection, recommender))
    return without_configured(recommender, rendered)


def stale(connection: Connection, recommender: Registered) -> list[str]:
    """Return the functions and views that another version made, or for pgvector in another schema."""
    row = queries.one(connection, "select_digests", recommender_id=recommender.id)
    installed = row["object_digests"]
    own = _own(connection, recommender)
    return [
        name
        for name, text in own.items()
        if name.startswith(("function", "view")) and installed.get(name) != digest(text)
    ]


def of_user(recommender: Registered, function: str) -> str:
    """Return the signature of a function of a user's id."""
    return f"{recommender.relation(function)}({recommender.user_type.parameter_sql})"


def _locked(connection: Connection, recommender: Registered) -> Registered:
    """Lock the recommender and return it with its present definition. Raises RecommenderNotFound."""
    return dataclasses.replace(
        recommender, definition=Definition.model_validate(_lock(connection, recommender)["definition"])
    )


def _lock(connection: Connection, recommender: Registered) -> dict[str, Any]:
    row = queries.row(connection, "lock_recommender", recommender_id=recommender.id)
    if row is None:
        raise RecommenderNotFound(name=recommender.name)
    return row


def without_configured(recommender: Registered, rendered: dict[str, str]) -> dict[str, str]:
    """Return the objects without the views whose SELECT is configuration: `alter` replaces them, never an upgrade."""
    definition = recommender.definition
    given = {"candidates": definition.candidates.given, "_fallback": definition.fallback.query is not None}
    given["exclusions"] = definition.exclusions.query is not None
    names = {f"view {name}" for name in CONFIGURED if given.get(name, True)}
    return {name: text for name, text in rendered.items() if name not in names}


def has_old_parents(connection: Connection, recommender: Registered) -> bool:
    row = connection.execute("SELECT to_regclass(%s) AS t", [recommender.relation(OLD_PARENTS["_items"])]).fetchone()
    return bool(row and row["t"])


def replace(
    connection: Connection, recommender: Registered, rendered: dict[str, str], *, always: bool = False
) -> list[str]:
    """Replace types, functions and views whose digest changed, or `always`, and create missing ones; return their names.

    In the caller's transaction, which must roll back if this raises DependentObjects.
    """
    row = _lock(connection, recommender)
    installed: dict[str, str] = row["object_digests"]
    present = _present(connection, recommender)
    changed = []
    for name, text in rendered.items():
        kind, plain = name.split()
        unchanged = installed.get(name) == digest(text) and name in present and not always
        if kind == "table" or unchanged:
            continue
        if name == "view _generation":
            lock_views(connection, recommender)
        if kind == "function":
            _replace_function(connection, recommender, plain, text)
        elif kind == "view":
            _replace_view(connection, recommender, plain, text)
            if name not in present:  # dropped by a CASCADE; its grants were those of its parent
                of_people = plain in ("user_vectors", "interactions", "_fallback", "exclusions")
                parent = recommender.relation("_users" if of_people else "_items")
                grant(connection, recommender.relation(plain), grants_on(connection, parent))
        elif name in present:  # a type in use can only be extended, by a migration
            connection.execute(text[text.index("COMMENT ON") :])
        else:
            connection.execute(text)
        changed.append(name)
    digests = installed | {name: digest(rendered[name]) for name in changed}
    if changed or row["objects_version"] != OBJECTS_VERSION:
        _store_digests(connection, recommender, digests)
    return changed


def _present(connection: Connection, recommender: Registered) -> set[str]:
    found = queries.rows(connection, "installed_objects", quoted=recommender.schema)
    if not found:
        check_schema(connection, recommender, missing_too=True)
    return {row["name"] for row in found}


def check_schema(connection: Connection, recommender: Registered, *, missing_too: bool = False) -> None:
    """Raise SchemaGone if the schema was renamed, with `missing_too` also if it was dropped."""
    name = recommender.name
    renamed = queries.row(connection, "renamed_schema", schema=name)
    if renamed:
        back = renamed["back"]
        raise SchemaGone(name=name, what=f"renamed to {renamed['name']}", remedy=f"Rename it back: {back}", run=back)
    if missing_too and not connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", [name]).fetchone():
        run = f"recstore drop {name}"
        raise SchemaGone(name=name, what="dropped", remedy=f"To remove the recommender: {run}", run=run)


def missing(connection: Connection, recommender: Registered) -> list[str]:
    """Return views, functions and types that are missing, for instance "view interactions"."""
    wanted = [name for name in render(recommender, "") if not name.startswith("table ")]
    present = _present(connection, recommender)
    return [name for name in wanted if name not in present]


def lock_views(connection: Connection, recommender: Registered) -> None:
    """Lock the vector views, ACCESS EXCLUSIVE, until the caller's transaction ends.

    Readers lock a view before what it reads, the view _generation and the parents. A change has to lock them in the same order,
    or it deadlocks with readers. Dropping a missing default locks the view alone; LOCK TABLE would lock the partitions too.
    """
    for name in (*OUTER_VIEWS, "candidates"):
        relation = recommender.relation(name)
        first = connection.execute(
            "SELECT a.attname FROM pg_attribute a WHERE a.attrelid = to_regclass(%s) AND a.attnum = 1", [relation]
        ).fetchone()
        if first:
            connection.execute(f"ALTER VIEW {relation} ALTER COLUMN {quoted(first['attname'])} DROP DEFAULT")


def replace_views(connection: Connection, recommender: Registered, *, old_parents: bool) -> None:
    """Replace the vector views, to read the parents or both kinds of parents, in the caller's transaction."""
    recommender = _locked(connection, recommender)
    rendered = render(recommender, "", old_parents=old_parents)
    names = [f"view {name}" for name in (*OUTER_VIEWS, "candidates")]
    replace(connection, recommender, without_configured(recommender, {name: rendered[name] for name in names}))


def replace_storage(connection: Connection, recommender: Registered, vector_type: str, dimensions: int) -> None:
    """Create parents next to the renamed ones, views of both, and functions of the new type, in the caller's transaction."""
    resized = dataclasses.replace(_locked(connection, recommender), vector_type=vector_type, dimensions=dimensions)
    rendered = render(resized, "", old_parents=True)
    for name, old in OLD_PARENTS.items():
        connection.execute(rendered[f"table {name}"])
        grant(connection, resized.relation(name), grants_on(connection, resized.relation(old)))
    replace(connection, resized, without_configured(resized, rendered))


def _functions_named(connection: Connection, recommender: Registered, name: str) -> list[dict[str, Any]]:
    return queries.rows(connection, "functions_named", schema=recommender.name, name=name)


def _replace_function(connection: Connection, recommender: Registered, name: str, text: str) -> None:
    before = _functions_named(connection, recommender, name)
    try:
        with connection.transaction():
            connection.execute(text)
    except pg.InvalidFunctionDefinition:  # another result type or parameter name: only a new function can have it
        for old in before:
            _drop(connection, "FUNCTION", old["signature"])
        connection.execute(text)
    wanted = {
        row["oid"]
        for signature in re.findall(r"COMMENT ON FUNCTION (.+\)) IS", text)
        for row in connection.execute("SELECT to_regprocedure(%s)::oid AS oid", [signature])
    }
    grantees = {grantee for row in before for grantee in row["grantees"]}
    for row in _functions_named(connection, recommender, name):
        if row["oid"] not in wanted:  # two signatures would make calls ambiguous
            _drop(connection, "FUNCTION", row["signature"])
        elif row["oid"] not in {old["oid"] for old in before}:
            for grantee in row["grantees"]:
                if before or grantee != "PUBLIC":
                    connection.execute(f"REVOKE ALL ON FUNCTION {row['signature']} FROM {grantee}")
            for grantee in grantees:
                connection.execute(f"GRANT EXECUTE ON FUNCTION {row['signature']} TO {grantee}")


def _replace_view(connection: Connection, recommender: Registered, name: str, text: str) -> None:
    relation = recommender.relation(name)
    with _path_of(connection, name):
        try:
            with connection.transaction():
                connection.execute(text)
        except pg.InvalidTableDefinition:  # a column changed its type or name
            grants = grants_on(connection, relation)
            _drop(connection, "VIEW", relation)
            connection.execute(text)
            grant(connection, relation, grants)


def _path_of(connection: Connection, name: str) -> AbstractContextManager[None]:
    return application_path(connection) if name in CONFIGURED else nullcontext()


def _drop(connection: Connection, kind: str, name: str) -> None:
    try:
        with connection.transaction():
            connection.execute(f"DROP {kind} {name}")
    except pg.DependentObjectsStillExist as error:
        raise DependentObjects(
            what=f"{kind.lower()} {name}",
            action="replaced",
            objects=" and ".join((error.diag.message_detail or one_line(error)).splitlines()),
            remedy="Drop or change those first, then try again; nothing was changed.",
        ) from None


def lacking_on(connection: Connection, recommender: Registered, view: str, role: str) -> list[str]:
    """Return the GRANTs that are missing for `role` to read a view with its own rights, also through other views."""
    rows = queries.rows(connection, "relations_read", schema=recommender.name, view=view, role=role)
    return [" ".join(row["grants"]) for row in rows if row["direct"] and row["grants"]]


def grants_on(connection: Connection, relation: str) -> list[dict[str, Any]]:
    return queries.rows(connection, "grants_on", relation=relation)


def granting(relation: str, grants: list[dict[str, Any]]) -> list[str]:
    """Return the statements that give a relation the privileges that `grants_on` found on another."""
    return [
        f"GRANT {row['privilege_type']} ON {relation} TO {row['grantee']}"
        + (" WITH GRANT OPTION" if row["is_grantable"] else "")
        for row in grants
    ]


def revoke_defaults(connection: Connection, schema: str) -> None:
    """Revoke what ALTER DEFAULT PRIVILEGES gave others on a schema that was just created, and on everything in it."""
    for row in queries.rows(connection, "revokes", schemas=[schema]):
        connection.execute(row["statement"])


def grant(connection: Connection, relation: str, grants: list[dict[str, Any]]) -> None:
    """Give a new relation these privileges, and none that ALTER DEFAULT PRIVILEGES gave it."""
    for grantee in {row["grantee"] for row in grants_on(connection, relation)}:
        connection.execute(f"REVOKE ALL ON {relation} FROM {grantee}")
    for statement in granting(relation, grants):
        connection.execute(statement)
