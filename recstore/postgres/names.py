"""Names of database objects, as SQL writes them."""

import re
from collections.abc import Collection

from psycopg import sql


def quoted(name: str) -> str:
    """Return the name as a quoted identifier."""
    return sql.Identifier(name).as_string(None)


def readable(name: str, keywords: Collection[str] = ()) -> str:
    """Return the name with quotes only where SQL needs them, as for `keywords`."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_$]*", name) and name not in keywords else quoted(name)
