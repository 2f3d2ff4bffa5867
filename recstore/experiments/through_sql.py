"""Ask the published functions for the lists of many users: metrics through the store are computed from these.

Asks exactly what an application asks; `recstore.evaluation` makes the same lists by NumPy.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import chain
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from recstore.config import cores
from recstore.evaluation.metrics import OnUsers
from recstore.model.arrays import Index
from recstore.model.interactions import Interactions
from recstore.postgres.connection import connect, plain_errors
from recstore.postgres.names import quoted
from recstore.sql.objects import Registered
from recstore.types import IdType

BATCH = 200
"""Users per statement: about a second of work, so that progress shows and Ctrl-C takes effect."""

MOST_CONNECTIONS = 8
"""Connections at once, on a server that has other work, too."""

RECOMMEND = """
SELECT array_agg(r.item_id ORDER BY r.place) AS items
FROM unnest(%(users)s::{user}[]) WITH ORDINALITY u (user_id, place)
LEFT JOIN LATERAL {schema}.recommend(u.user_id, %(k)s, %(exclude_seen)s)
    WITH ORDINALITY r (item_id, score, reason, place) ON true
GROUP BY u.place
ORDER BY u.place
"""

# the direct query of the documentation, for many users at once and among candidates
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
    known: Interactions,
    users: NDArray[np.intp],
    k: int,
    *,
    exclude_seen: bool = True,
    candidates: sparse.csr_matrix | None = None,
    threads: int = 0,
    on_users: OnUsers | None = None,
) -> Index:
    """Return the lists of these users: (users, k) int32 item positions, best first, -1 where a list is shorter.

    Positions are those of the id maps of `known`. Asks `NAME.recommend(user, k, exclude_seen)`; with `candidates` (users x
    items, whatever is stored) the direct query on `item_vectors`, among each user's candidates only. Threads 0: a
    connection per core. Raises RecstoreError.
    """
    text = (RECOMMEND if candidates is None else RANK).format(
        schema=recommender.schema,
        extension=quoted(recommender.vector_schema),
        user=recommender.user_type.parameter_sql,
        item=recommender.item_type.value,
        collate=' COLLATE "C"' if recommender.item_type is IdType.TEXT else "",
    )

    def values(block: NDArray[np.intp]) -> dict[str, Any]:
        asked = {"users": [known.users.to_python(int(n)) for n in block]}
        if candidates is None:
            return asked | {"k": k, "exclude_seen": exclude_seen}
        rows = candidates[block]
        owners = np.repeat(np.arange(1, len(block) + 1), np.diff(rows.indptr)).tolist()
        return asked | {"owners": owners, "items": [known.items.to_python(int(n)) for n in rows.indices]}

    lists, starts, done = np.full((len(users), k), -1, dtype=np.int32), range(0, len(users), BATCH), 0
    number = min(threads or cores(), MOST_CONNECTIONS, max(len(starts), 1))
    with plain_errors("asking for recommendations"), ExitStack() as stack:
        opened = [stack.enter_context(connect(url, "recstore:evaluate")) for _ in range(number)]
        for connection in opened:
            connection.execute("SET default_transaction_read_only = on")  # candidates are the application's
            connection.execute("SET jit = off")  # expensive functions, few rows: a compiler gains nothing
        free = list(opened)

        def ask(start: int) -> int:
            block, connection = users[start : start + BATCH], free.pop()
            try:
                rows = connection.execute(text, values(block)).fetchall()
            finally:
                free.append(connection)
            found = [[item for item in row["items"] or [] if item is not None][:k] for row in rows]
            ids = list(chain.from_iterable(found))
            if recommender.item_type is IdType.UUID:
                ids = [item.bytes for item in ids]
            listed = np.arange(k) < np.array([len(answer) for answer in found])[:, None]
            lists[start : start + len(block)][listed] = known.items.lookup(pa.array(ids, recommender.item_type.arrow))
            return len(block)

        pool = ThreadPoolExecutor(number)
        try:
            for answered in pool.map(ask, starts):
                done += answered
                if on_users:
                    on_users(done, len(users))
        except BaseException:
            for connection in opened:
                with suppress(psycopg.Error):
                    connection.cancel_safe()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    return lists
