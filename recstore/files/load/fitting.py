"""Whether values fit a type that is given: what is sure is decided here, of everything else the server is asked."""

from collections.abc import Sequence

import numpy as np
import psycopg
import pyarrow as pa

from recstore.files.load.kinds import surely_fit
from recstore.postgres.connection import Connection, one_line
from recstore.sql.queries import query

ASKED = 20_000
"""Values of one question to the server."""

SOFT_ERRORS = 160000
"""The first server version that can be asked about many values in one statement."""


def misfits(connection: Connection, values: pa.Array, type: str) -> dict[int, str]:
    """Position -> what is wrong, of an array of strings without NULLs, for a column of PostgreSQL's `type`."""
    unsure = np.flatnonzero(~surely_fit(values, type))
    if not len(unsure):
        return {}
    distinct = values.take(pa.array(unsure)).dictionary_encode()
    texts = distinct.dictionary.to_pylist()
    wrong: dict[int, str] = {}
    for start in range(0, len(texts), ASKED):
        asked = texts[start : start + ASKED]
        wrong |= {start + position: reason for position, reason in _ask(connection, asked, type).items()}
    indices = distinct.indices.to_numpy()
    bad = np.flatnonzero(np.isin(indices, list(wrong))) if wrong else ()
    return {int(unsure[n]): wrong[int(indices[n])] for n in bad}


def _ask(connection: Connection, texts: Sequence[str], type: str) -> dict[int, str]:
    if connection.info.server_version >= SOFT_ERRORS:
        try:
            rows = connection.execute(query("input_errors"), {"values": list(texts), "type": type}).fetchall()
            return {row["position"] - 1: row["message"] for row in rows}
        except psycopg.DataError:  # a type that only knows how to raise
            pass
    wrong = {}
    for position, text in enumerate(texts):
        try:
            connection.execute(f"SELECT %s::text::{type}", [text])  # as format_type names it
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            wrong[position] = one_line(error)
    return wrong
