"""What the checks are run on: a connection, whose role it is, and which recommenders and readers there are."""

from dataclasses import dataclass, field
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
    """Of recstore's schema; None where there is none, or the role may not see it."""

    private: bool
    """Whether there is a schema recstore_private."""

    own: bool
    """Whether recstore's own tables are those of this version, and this role's to read."""

    problem: str | None
    """Why they could not be read, although they are."""

    keywords: frozenset[str]
    """Words that have to be quoted."""

    names: list[str]
    """The recommenders to look at."""

    registered: dict[str, Registered] = field(default_factory=dict)
    """Those of them whose row can be read."""

    readers: dict[str, list[tuple[str, bool]]] = field(default_factory=dict)
    """Of each recommender the roles to look at, and whether recommend() should work for them."""

    def rows(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """The rows of a named query."""
        return self.connection.execute(queries.query(query), parameters).fetchall()

    def row(self, query: str, **parameters: Any) -> dict[str, Any]:
        """The only row of a named query."""
        (row,) = self.rows(query, **parameters)
        return row

    def quoted(self, *names: str) -> str:
        """As SQL writes the name of an object, with quotes where it takes them: a person reads it."""
        return ".".join(readable(name, self.keywords) for name in names)


def look_around(
    connection: Connection, url: str, settings: Settings, name: str | None, readers: tuple[str, ...]
) -> Subject:
    """The subject of all checks of recommender `name`, or of all; reads only. Raises RecommenderNotFound, InvalidInput for a
    reader that is no role."""
    self = connection.execute(queries.query("doctor_self"), {}).fetchone()
    assert self is not None
    extension = connection.execute(queries.query("vector_extension")).fetchone()
    subject = Subject(
        connection=connection,
        url=url,
        settings=settings,
        role=self["role"],
        database=self["database"],
        extension=extension and extension | {"usable": self["vector_usable"]},
        revision=schema_revision.current(connection) if self["readable"] else None,
        private=self["private"],
        own=False,
        problem=None,
        keywords=frozenset(row["word"] for row in connection.execute(queries.query("keywords")).fetchall()),
        names=[row["name"] for row in connection.execute(queries.query("doctor_recommender_schemas")).fetchall()],
    )
    if subject.revision == schema_revision.head() and self["readable"]:
        try:
            with connection.transaction():
                subject.registered = {found.name: found for found in registry.all_registered(connection)}
            subject.own = True
            subject.names = list(subject.registered)
        except psycopg.DatabaseError as problem:
            if connection.closed:
                raise
            subject.problem = one_line(problem)
        except (RecstoreError, ValueError) as problem:  # a definition that this version does not understand
            subject.problem = " ".join(str(problem).split())
    if name is not None:
        if name not in subject.names and subject.private:
            raise RecommenderNotFound(name=name)
        subject.names = [known for known in subject.names if known == name]
    else:
        passing = connection.execute(queries.query("scratch_schemas"), {"mark": scratch.MARK}).fetchall()
        subject.names = [known for known in subject.names if {"name": known} not in passing]
    for role in readers:
        grants.check_role(connection, role)
    for known in subject.names:
        subject.readers[known] = [(role, True) for role in readers] or [
            (row["role"], row["people"])
            for row in connection.execute(queries.query("doctor_readers"), {"schema": known}).fetchall()
        ]
    return subject
