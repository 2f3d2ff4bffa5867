"""Find tables that may hold interactions by their columns and types, the likeliest first.

Only the catalogs are read. Names are hints: what is found is shown to a person, and not used unasked.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations
from math import log10
from typing import Any

from recstore.postgres.connection import Connection, plain_errors
from recstore.postgres.names import readable
from recstore.sql import queries
from recstore.types import NUMBER_OIDS, TIMESTAMP_OIDS, type_of_oid

BOOLEAN, TEXT = 16, (25, 1043)

USERS = ("user", "customer", "visitor", "member", "account", "client", "person", "reader", "viewer", "session", "buyer")
ITEMS = (
    *("item", "product", "article", "resource", "sku", "movie", "film", "book", "song", "track", "page", "content"),
    *("document", "listing", "post", "video", "course", "offer", "asset"),
)
VALUES = (
    *("view", "count", "quantity", "click", "visit", "times", "rating", "score", "value", "amount", "plays", "number"),
)
COUNTS = re.compile(r"(^|_)(count|value|view|score|quantity|qty|amount|rating)s?($|_)")
"""Names of counts, which are whole numbers and no ids."""

TIMES = ("last", "seen", "view", "updated", "at", "time", "date", "created")
TITLES = ("title", "name", "label", "headline", "caption", "description")
SHOWN = ("visible", "active", "published", "available", "in_stock", "enabled", "public", "online", "live")
HIDDEN = ("deleted", "hidden", "archived", "disabled", "removed", "draft", "blocked")


@dataclass(frozen=True)
class Column:
    """A column, its type and its keys."""

    name: str
    type: str
    type_oid: int
    is_key: bool
    """True if it is unique by itself."""
    in_key: bool
    begins_index: bool
    numbered: bool
    """True if the server numbers its rows: an identity, a sequence, a random uuid."""
    refers_to: str | None
    """Table that its foreign key references."""

    @property
    def may_be_id(self) -> bool:
        return self.type_oid in type_of_oid

    @property
    def may_be_count(self) -> bool:
        """Return True for a number that identifies neither its row nor a row of another table."""
        named_id = re.search(r"(^|_)id$|[a-z]I[dD]$", self.name)
        return self.number and not (self.is_key or self.numbered or self.refers_to or named_id)

    @property
    def number(self) -> bool:
        return self.type_oid in NUMBER_OIDS

    @property
    def time(self) -> bool:
        return self.type_oid in TIMESTAMP_OIDS


@dataclass(frozen=True)
class Table:
    """A table or view, written as SQL writes it, with the planner's estimate of its rows."""

    name: str
    is_view: bool
    rows: int
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)

    def key(self) -> Column | None:
        """Return the column that identifies its rows."""
        return next((column for column in self.columns if column.is_key and column.may_be_id), None)


@dataclass(frozen=True)
class Candidate:
    """A table that may hold interactions, with the columns for each role, the likeliest first."""

    table: Table
    users: tuple[str, ...]
    items: tuple[str, ...]
    values: tuple[str, ...]
    times: tuple[str, ...]
    score: float = field(compare=False)
    counts: bool = field(default=False, compare=False)
    """True if the first of `values` is likely to count views; otherwise every row is one view."""

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        named = {"user": self.users, "item": self.items, "value": self.values, "last_at": self.times}
        return {"table": self.table.name, "rows": self.table.rows} | {key: list(names) for key, names in named.items()}


def readable_tables(connection: Connection) -> list[Table]:
    """Return the tables and views that the role may read, by name, except PostgreSQL's and recstore's own."""
    with plain_errors("looking at the tables", connection):
        rows = queries.rows(connection, "readable_columns")
    tables: dict[tuple[str, bool, int], list[Column]] = {}
    for row in rows:
        table = row.pop("table_name"), row.pop("is_view"), row.pop("rows")
        tables.setdefault(table, []).append(Column(**row))
    return [Table(*table, tuple(columns)) for table, columns in tables.items()]


def candidates(tables: list[Table]) -> list[Candidate]:
    """Return tables with columns that may be ids of users and items, the likeliest first, ties by name."""
    found = [candidate for table in tables if (candidate := _candidate(table))]
    return sorted(found, key=lambda candidate: (-candidate.score, candidate.table.name))


def _candidate(table: Table) -> Candidate | None:
    ids = [column for column in table.columns if column.may_be_id and not (column.is_key or column.numbered)]
    if len(ids) < 2:
        return None
    as_user = {column.name: _as_id(column, USERS, ITEMS) for column in ids}
    as_item = {column.name: _as_id(column, ITEMS, USERS) for column in ids}
    users, items = _ranked(as_user), _ranked(as_item)
    score = max(as_user[user] + as_item[item] for user, item in permutations(as_user, 2))
    ids_named = {users[0], next(item for item in items if item != users[0])}
    others = [column for column in table.columns if column.name not in ids_named and not column.is_key]
    numbers = {c.name: float(_hinted(c.name, VALUES)) for c in others if c.may_be_count}
    times = {c.name: _hinted(c.name, TIMES) for c in others if c.time}
    score += max(numbers.values(), default=0) / 2 + bool(times) / 4 + log10(table.rows + 1) / 4 - table.is_view / 4
    of_pairs = all(column.in_key for column in ids if column.name in ids_named)
    counts = of_pairs or max(numbers.values(), default=0) > 0
    return Candidate(table, users, items, _ranked(numbers), _ranked(times), score, counts)


def _as_id(column: Column, hints: tuple[str, ...], others: tuple[str, ...]) -> float:
    """Rate a column as an id of one side by its name, its reference and its keys. Text rates lower than a number or a uuid,
    and a count lowest."""
    score = 2.0 * _hinted(column.name, hints) - 2.0 * _hinted(column.name, others)
    score += _hinted(column.refers_to or "", hints) - _hinted(column.refers_to or "", others)
    score += bool(column.refers_to) + column.in_key + 0.5 * column.begins_index + column.name.endswith("id")
    return score - (column.type_oid in TEXT) - 9.0 * bool(COUNTS.search(column.name.lower()))


def _hinted(name: str, hints: tuple[str, ...]) -> bool:
    return any(hint in name.lower() for hint in hints)


def _ranked(scores: Mapping[str, float]) -> tuple[str, ...]:
    """Return the names by descending score, ties as in the table."""
    return tuple(sorted(scores, key=lambda name: -scores[name]))


def tables_of_items(tables: list[Table], interactions: Table, item: str) -> list[Table]:
    """Return the table of items: the one that the column references, else those whose key has its name and type."""
    column = interactions.column(item)
    if column is None:
        return []
    referred = [table for table in tables if table.name == column.refers_to]
    keyed = [(table, key) for table in tables if table.name != interactions.name and (key := table.key())]
    return referred or [
        table
        for table, key in keyed
        if key.name == item and type_of_oid[key.type_oid] == type_of_oid.get(column.type_oid)
    ]


def titles_of(table: Table) -> tuple[str, ...]:
    """Return the columns that may be titles of items, the likeliest first."""
    texts = [column.name for column in table.columns if column.type_oid in TEXT and not column.is_key]
    hinted = {name: [hint in name.lower() for hint in (*TITLES, "")].index(True) for name in texts}
    return tuple(sorted(texts, key=lambda name: hinted[name]))


def conditions_of(table: Table) -> tuple[str, ...]:
    """Return conditions for items that may be recommended, from the names of boolean columns."""
    names = [column.name for column in table.columns if column.type_oid == BOOLEAN]
    words = {name: "NOT " if _hinted(name, HIDDEN) else "" for name in names if _hinted(name, HIDDEN + SHOWN)}
    return tuple(f"{word}{readable(name)}" for name, word in words.items())
