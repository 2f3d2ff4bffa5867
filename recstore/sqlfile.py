"""Files of named SQL: `-- name: load_items` (or `-- object: view x`) starts a statement, comments above it explain it."""

import re
from functools import cache
from importlib import resources

_HEADER = re.compile(r"^-- (?:name|object): (.+)$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@cache
def load(path: str) -> dict[str, str]:
    """Name -> SQL text of `recstore/sql/<path>`, in the file's order."""
    text = resources.files("recstore").joinpath("sql", path).read_text()
    parts = _HEADER.split(text)[1:]
    return {name.strip(): sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)}


def query(name: str) -> str:
    """The named statement of `queries.sql`."""
    return load("queries.sql")[name]


def fill(template: str, values: dict[str, str]) -> str:
    """`template` with each {name} replaced; braces around anything else (an array literal) stay as they are.

    The values are SQL text: identifiers are quoted by the caller. An unknown name raises KeyError.
    """
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)
