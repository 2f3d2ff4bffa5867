"""Load named SQL from files: `-- name: load_items` or `-- object: view x` starts a statement.

Parameters are %(name)s, and a percent sign is doubled. Statements on a recommender's own objects, whose names vary, are next
to the code that executes them.
"""

import re
from functools import cache
from importlib import resources
from typing import Any

from recstore.postgres.connection import Connection

_HEADER = re.compile(r"^-- (?:name|object): (.+)$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@cache
def load(path: str) -> dict[str, str]:
    """Return name -> SQL text of `recstore/sql/<path>`, in the order of the file."""
    text = resources.files("recstore").joinpath("sql", path).read_text()
    parts = _HEADER.split(text)[1:]
    return {name.strip(): sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)}


def query(name: str) -> str:
    """Return the statement with this name from any file of `recstore/sql/`."""
    return _queries()[name]


def run(connection: Connection, statement: str, /, **parameters: object) -> None:
    """Execute a named statement."""
    connection.execute(query(statement), parameters)


def rows(connection: Connection, statement: str, /, **parameters: object) -> list[dict[str, Any]]:
    """Return the rows of a named statement."""
    return connection.execute(query(statement), parameters).fetchall()


def row(connection: Connection, statement: str, /, **parameters: object) -> dict[str, Any] | None:
    """Return the first row of a named statement, or None."""
    return connection.execute(query(statement), parameters).fetchone()


def one(connection: Connection, statement: str, /, **parameters: object) -> dict[str, Any]:
    """Return the row of a named statement that always has one."""
    found = row(connection, statement, **parameters)
    assert found is not None, statement
    return found


@cache
def _queries() -> dict[str, str]:
    files = sorted(
        file.name for file in resources.files("recstore").joinpath("sql").iterdir() if file.name.endswith(".sql")
    )
    return {name: sql for file in files for name, sql in load(file).items()}


def fill(template: str, values: dict[str, str]) -> str:
    """Return `template` with each {name} replaced; other braces, as in an array literal, stay.

    The values are SQL text: the caller quotes identifiers. Raises KeyError for an unknown name.
    """
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)
