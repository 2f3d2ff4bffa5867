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
from recstore.postgres.session import LOCAL_OWNER
from recstore.sql import queries, schema_revision
from recstore.sql.objects import Registered


@dataclass
class Subject:
    """A database as one role sees it; for the checks of a recommender or of a reader, with that one."""

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
    """True if recstore's own tables exist, as far as the role can see."""

    keywords: frozenset[str]
    """Words that SQL requires to be quoted."""

    schemas: list[str]
    """Schemas of recstore's: its own, those of all recommenders, those of scratch data."""

    names: list[str]
    """Recommenders to examine."""

    superuser: bool = False
    """True if the login is a superuser and recstore's owner is not: nothing of the application's is executed."""

    own: bool = False
    """True if recstore's own tables are those of this version and can be read."""

    problem: str | None = None
    """Why reading them failed."""

    registered: dict[str, Registered] = field(default_factory=dict)
    """Recommenders whose row can be read."""

    readers: dict[str, dict[str, bool]] = field(default_factory=dict)
    """Roles to examine for each recommender, and whether recommend() should work for them."""

    name: str = ""
    """Recommender of this check, or of its reader."""

    reader: str = ""
    """Application's role of this check."""

    @property
    def recommender(self) -> Registered:
        """The recommender of this check."""
        return self.registered[self.name]

    @property
    def people(self) -> bool:
        """True if recommend() should work for the reader."""
        return self.readers[self.name][self.reader]

    def rows(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return the rows of a named query, which also knows the recommender by its schema and id, and the reader's role."""
        registered = self.registered.get(self.name)
        known = {"schema": self.name, "recommender_id": registered and registered.id, "role": self.reader}
        return queries.rows(self.connection, query, **known | parameters)

    def row(self, query: str, **parameters: Any) -> dict[str, Any]:
        """Return the only row of a named query."""
        (row,) = self.rows(query, **parameters)
        return row

    @cached_property
    def server(self) -> dict[str, Any]:
        """Version and parameters of the server."""
        return self.row("doctor_server")

    @cached_property
    def live(self) -> dict[str, Any]:
        """The live generation of the recommender, and the warnings of its newest retrain or reindex."""
        return self.row("doctor_live")

    def quoted(self, *names: str) -> str:
        """Return the name of an object as a person writes it in SQL: quoted only where necessary."""
        return ".".join(readable(name, self.keywords) for name in names)


def look_around(
    connection: Connection, url: str, settings: Settings, name: str | None, readers: Sequence[str]
) -> Subject:
    """Return the subject of all checks of recommender `name`, or of all. Raises RecommenderNotFound, and InvalidInput for a
    reader that is not a role."""
    role = queries.one(connection, "doctor_self")
    extension = queries.row(connection, "vector_extension")
    revision = schema_revision.current(connection) if role["readable"] else None
    recommenders = [row["name"] for row in queries.rows(connection, "doctor_recommender_schemas")]
    login = connection.execute(LOCAL_OWNER).fetchone()
    passing = [row["name"] for row in queries.rows(connection, "scratch_schemas", **scratch.MARKED)]
    subject = Subject(
        connection=connection,
        url=url,
        settings=settings,
        role=role["role"],
        database=role["database"],
        extension=extension and extension | {"usable": role["vector_usable"]},
        revision=revision,
        private=role["private"]
        and (revision is not None or not role["readable"]),  # a downgrade leaves an empty schema
        keywords=frozenset(row["word"] for row in queries.rows(connection, "keywords")),
        schemas=["recstore", "recstore_private", *recommenders, *(f"{name}_data" for name in passing)],
        names=recommenders,
        superuser=bool(login and login["refused"] == "superuser"),
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
        subject.names = [known for known in subject.names if known not in passing]
    for reader in readers:
        grants.check_role(connection, reader)
    for known in subject.names:
        subject.readers[known] = dict.fromkeys(readers, True) or {
            row["role"]: row["people"] for row in subject.rows("doctor_readers", schema=known)
        }
    return subject
