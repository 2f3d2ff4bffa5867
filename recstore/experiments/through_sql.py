"""The lists that the published functions return, for many users: what metrics through the store are computed from.

The other end of `recstore.evaluation`, whose lists come from NumPy. Asks exactly what an application asks.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from recstore.model.interactions import IdMap, Index
from recstore.postgres.connection import Connection, connect, plain_errors
from recstore.postgres.names import quoted
from recstore.sql.objects import Registered
from recstore.types import IdType

BATCH = 200
"""Users per statement: a second or so of work, so that progress is seen and Ctrl-C heard."""

MOST_CONNECTIONS = 8
"""At once, on a server that serves others, too."""

OnUsers = Callable[[int, int], None]
"""Called with (users answered so far, users asked for)."""

RECOMMEND = """
SELECT array_agg(r.item_id ORDER BY r.place) AS items
FROM unnest(%(users)s::{user}[]) WITH ORDINALITY u (user_id, place)
LEFT JOIN LATERAL {schema}.recommend(u.user_id, %(k)s, %(exclude_seen)s)
    WITH ORDINALITY r (item_id, score, reason, place) ON true
GROUP BY u.place
ORDER BY u.place
"""

# the query of one's own that README shows, for many users at once and given items
RANK = """
WITH asked AS MATERIALIZED (
    SELECT u.place, {schema}.user_vector(u.user_id) AS vector
    FROM unnest(%(users)s::{user}[]) WITH ORDINALITY u (user_id, place)
)
SELECT array_agg(v.item_id ORDER BY v.preference OPERATOR({extension}.<#>) a.vector, v.item_id{collate}) AS items
FROM asked a
LEFT JOIN unnest(%(owners)s::bigint[], %(items)s::{item}[]) c (place, item_id) ON c.place = a.place
LEFT JOIN {schema}.item_vectors v ON v.item_id = c.item_id
GROUP BY a.place
ORDER BY a.place
"""


def recommended(
    url: str,
    recommender: Registered,
    users: IdMap,
    items: IdMap,
    chosen: NDArray[np.intp],
    k: int,
    *,
    exclude_seen: bool = True,
    threads: int = 0,
    on_users: OnUsers | None = None,
) -> Index:
    """What `NAME.recommend(user, k, exclude_seen)` returns for each of `chosen` (positions in `users`): (len(chosen), k)
    int32 positions in `items`, best first, -1 where a list is shorter. Threads 0: a connection per core.
    Raises RecstoreError."""
    return _asked(
        url,
        recommender,
        RECOMMEND,
        chosen,
        lambda block: {"users": _ids(users, block), "k": k, "exclude_seen": exclude_seen},
        items,
        k,
        threads,
        on_users,
    )


def ranked(
    url: str,
    recommender: Registered,
    users: IdMap,
    items: IdMap,
    chosen: NDArray[np.intp],
    candidates: sparse.csr_matrix,
    k: int,
    *,
    threads: int = 0,
    on_users: OnUsers | None = None,
) -> Index:
    """As `recommended`, among each user's candidates only (users x items, whatever is stored): the direct query on
    `item_vectors` by `user_vector`."""

    def values(block: NDArray[np.intp]) -> dict[str, Any]:
        rows = candidates[block]
        owners = np.repeat(np.arange(1, len(block) + 1), np.diff(rows.indptr))
        return {"users": _ids(users, block), "owners": owners.tolist(), "items": _ids(items, rows.indices)}

    return _asked(url, recommender, RANK, chosen, values, items, k, threads, on_users)


def _asked(
    url: str,
    recommender: Registered,
    statement: str,
    chosen: NDArray[np.intp],
    values: Callable[[NDArray[np.intp]], dict[str, Any]],
    items: IdMap,
    k: int,
    threads: int,
    on_users: OnUsers | None,
) -> Index:
    text = statement.format(
        schema=recommender.schema,
        extension=quoted(recommender.vector_schema),
        user=recommender.user_type.parameter_sql,
        item=recommender.item_type.value,
        collate=' COLLATE "C"' if recommender.item_type is IdType.TEXT else "",
    )
    lists = np.full((len(chosen), k), -1, dtype=np.int32)
    done = 0

    def ask(connection: Connection, start: int) -> int:
        block = chosen[start : start + BATCH]
        rows = connection.execute(text, values(block)).fetchall()
        found = [[item for item in row["items"] or [] if item is not None][:k] for row in rows]
        lengths = np.array([len(answer) for answer in found])
        listed = np.arange(k) < lengths[:, None]
        ids = list(chain.from_iterable(found))
        lists[start : start + len(block)][listed] = items.lookup(_arrow(ids, recommender.item_type))
        return len(block)

    starts = range(0, len(chosen), BATCH)
    with _connections(url, min(threads or os.cpu_count() or 1, MOST_CONNECTIONS, max(len(starts), 1))) as opened:
        free = list(opened)

        def job(start: int) -> int:
            connection = free.pop()
            try:
                return ask(connection, start)
            finally:
                free.append(connection)

        pool = ThreadPoolExecutor(len(opened))
        try:
            for answered in pool.map(job, starts):
                done += answered
                if on_users:
                    on_users(done, len(chosen))
        except BaseException:
            for connection in opened:
                with suppress(psycopg.Error):
                    connection.cancel_safe()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    return lists


@contextmanager
def _connections(url: str, number: int) -> Iterator[list[Connection]]:
    opened: list[Connection] = []
    try:
        with plain_errors("asking for recommendations"):
            for _ in range(number):
                opened.append(connect(url, "recstore:evaluate"))
                # dear functions, few rows: a compiler gains nothing
                opened[-1].execute("SET jit = off")
            yield opened
    finally:
        for connection in opened:
            connection.close()


def _ids(ids: IdMap, index: NDArray[Any]) -> list[Any]:
    taken = ids.take(index)
    if isinstance(taken, pa.FixedSizeBinaryArray):
        return [ids.to_python(int(n)) for n in index]
    return list(taken.to_pylist())


def _arrow(found: Sequence[Any], kind: IdType) -> pa.Array:
    return pa.array([item.bytes for item in found] if kind is IdType.UUID else found, kind.arrow)
