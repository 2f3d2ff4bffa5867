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


def how_to_write(table: str) -> str:
    """Return the remedy for a table that does not exist under this name, with quotes where "Schema.table" misses them."""
    schema, _, name = table.replace('"', "").partition(".")
    written = f"{readable(schema)}.{readable(name)}"
    if not (schema and name and table.isprintable()) or written == table:
        return "Write it as schema.table."
    return f"Write it as schema.table, each name in quotes of its own where it needs them: {written}."
