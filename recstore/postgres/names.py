"""Names of a database's objects, as SQL writes them."""

import re
from collections.abc import Collection

from psycopg import sql


def quoted(name: str) -> str:
    """For a statement."""
    return sql.Identifier(name).as_string(None)


def readable(name: str, keywords: Collection[str] = ()) -> str:
    """For a person: with quotes only where it takes them, as `keywords` do."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_$]*", name) and name not in keywords else quoted(name)
