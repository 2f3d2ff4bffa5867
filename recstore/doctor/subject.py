"""The subject of the checks: a database as one role sees it, with its recommenders and their readers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import psycopg

from recstore import registry
from recstore.config import Settings
from recstore.errors import RecommenderNotFound, RecstoreError
from recstore.experiments import scratch
from recstore.postgres import grants
from recstore.postgres.connection import Connection, one_line
from recstore.postgres.names import readable
from recstore.sql import queries, schema_revision
from recstore.sql.objects import Registered


@dataclass
class Subject:
    """A database as one role sees it."""

    connection: Connection
    url: str
    settings: Settings
    role: str
    database: str
    extension: dict[str, Any] | None
    """pgvector's schema, version, and whether the role may use that schema; None where it is not installed."""

    revision: str | None
    """Revision of recstore's schema; None where it is missing, or hidden from the role."""

    private: bool
    """True if the schema recstore_private exists."""

    keywords: frozenset[str]
    """Words that SQL requires to be quoted."""

    names: list[str]
    """Recommenders to examine."""

    own: bool = False
    """True if recstore's own tables are those of this version and can be read."""

    problem: str | None = None
    """Why reading them failed."""

    registered: dict[str, Registered] = field(default_factory=dict)
    """Recommenders whose row can be read."""

    readers: dict[str, dict[str, bool]] = field(default_factory=dict)
    """Roles to examine for each recommender, and whether recommend() should work for them."""

    def rows(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return the rows of a named query."""
        return self.connection.execute(queries.query(query), parameters).fetchall()

    def row(self, query: str, **parameters: Any) -> dict[str, Any]:
        """Return the only row of a named query."""
        (row,) = self.rows(query, **parameters)
        return row

    @cached_property
    def server(self) -> dict[str, Any]:
        """Version and parameters of the server."""
        return self.row("doctor_server")

    def live(self, name: str) -> dict[str, Any]:
        """Return the live generation of a recommender, and the warnings of its newest retrain or reindex."""
        return self.row("doctor_live", recommender_id=self.registered[name].id)

    def quoted(self, *names: str) -> str:
        """Return the name of an object as a person writes it in SQL: quoted only where necessary."""
        return ".".join(readable(name, self.keywords) for name in names)


def look_around(
    connection: Connection, url: str, settings: Settings, name: str | None, readers: Sequence[str]
) -> Subject:
    """Return the subject of all checks of recommender `name`, or of all. Raises RecommenderNotFound, and InvalidInput for a
    reader that is not a role."""

    def rows(query: str, **parameters: Any) -> list[dict[str, Any]]:
        return connection.execute(queries.query(query), parameters).fetchall()

    (self,) = rows("doctor_self")
    extension = next(iter(rows("vector_extension")), None)
    subject = Subject(
        connection=connection,
        url=url,
        settings=settings,
        role=self["role"],
        database=self["database"],
        extension=extension and extension | {"usable": self["vector_usable"]},
        revision=schema_revision.current(connection) if self["readable"] else None,
        private=self["private"],
        keywords=frozenset(row["word"] for row in rows("keywords")),
        names=[row["name"] for row in rows("doctor_recommender_schemas")],
    )
    if subject.revision == schema_revision.head():
        try:
            with connection.transaction():
                subject.registered = {found.name: found for found in registry.all_registered(connection)}
            subject.own, subject.names = True, list(subject.registered)
        except psycopg.DatabaseError as problem:
            if connection.closed:
                raise
            subject.problem = one_line(problem)
        except (RecstoreError, ValueError) as problem:  # a definition of another version of recstore
            subject.problem = " ".join(str(problem).split())
    if name is not None:
        if name not in subject.names and subject.private:
            raise RecommenderNotFound(name=name)
        subject.names = [known for known in subject.names if known == name]
    else:
        passing = rows("scratch_schemas", mark=scratch.MARK)
        subject.names = [known for known in subject.names if {"name": known} not in passing]
    for role in readers:
        grants.check_role(connection, role)
    for known in subject.names:
        subject.readers[known] = dict.fromkeys(readers, True) or {
            row["role"]: row["people"] for row in rows("doctor_readers", schema=known)
        }
    return subject
