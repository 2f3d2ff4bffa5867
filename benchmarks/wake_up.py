"""Measure how soon a run begins after its request is committed: on the worker without a broker, and on Celery's.

The two workers serve one database each, in turns, request after request; the times are the server's own.

    python benchmarks/wake_up.py
"""

import statistics
import subprocess
import time
from contextlib import ExitStack

import published
from measured import Measured

from recstore import pipeline
from recstore.definition import Definition, Hyperparameters, Source
from recstore.demo.broker import temporary_broker
from recstore.embedded.configured import celery_environment, celery_worker, own_worker
from recstore.operations import recommenders
from recstore.postgres.connection import Connection

REQUESTS = 50

BEGAN = """
    SELECT extract(epoch FROM u.started_at - q.requested_at) * 1000 AS waited
    FROM recstore.requests q JOIN recstore.runs u ON u.run = q.run
    WHERE q.request = %s AND u.finished_at IS NOT NULL
"""


def waited(connection: Connection) -> float:
    """Request a job and return the milliseconds until its run began."""
    row = connection.execute("SELECT recstore.request_reindex('shop') AS request").fetchone()
    assert row
    while not (found := connection.execute(BEGAN, [row["request"]]).fetchone()):
        time.sleep(0.01)
    return float(found["waited"])


def main() -> None:
    part = Measured("wake_up", requests=REQUESTS)
    with ExitStack() as stack:
        broker = stack.enter_context(temporary_broker())
        databases: dict[str, Connection] = {}
        for kind, command in (
            ("recstore worker", own_worker()),
            ("Celery on Redis", celery_worker("one", "train,default", 2)),
        ):
            connection, settings, url = stack.enter_context(published.database())
            connection.execute("CREATE SCHEMA shop_data")
            connection.execute(
                "CREATE TABLE shop_data.views AS SELECT u AS user_id, (u * 7 + n * n) % 40 AS item_id, 1 AS value"
                " FROM generate_series(1, 60) u, generate_series(1, 8) n"
            )
            definition = Definition(source=Source(table="shop_data.views"), hyperparameters=Hyperparameters(factors=8))
            recommenders.create(connection, settings, "shop", definition)
            pipeline.retrain(url, settings, "shop")
            variables = celery_environment(
                RECSTORE_DATABASE_URL=url, RECSTORE_BROKER_URL=broker.url, RECSTORE_METRICS_PORT="0"
            )
            worker = subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            stack.callback(worker.wait)
            stack.callback(worker.terminate)
            waited(connection)
            databases[kind] = connection
        times: dict[str, list[float]] = {kind: [] for kind in databases}
        for _ in range(REQUESTS):
            for kind, connection in databases.items():
                times[kind].append(waited(connection))
        for kind, found in times.items():
            part.row("request to run", worker=kind, median_ms=statistics.median(found), longest_ms=max(found))
    part.write()


if __name__ == "__main__":
    main()
