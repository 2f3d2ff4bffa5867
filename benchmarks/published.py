"""Publish a generation of given factors in a temporary server of its own, for the benchmarks that ask one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recstore import pipeline
from recstore.config import Settings
from recstore.embedded import temporary_server
from recstore.model import trainers, vectors
from recstore.model.confidence import Weighted
from recstore.model.interactions import IdMap, Interactions
from recstore.model.trainers import FoldIn
from recstore.operations import jobs, schema
from recstore.postgres.connection import Connection, connect
from recstore.publication import building
from recstore.runs import Run


@contextmanager
def database(version: int = 18, **parameters: str) -> Iterator[tuple[Connection, Settings, str]]:
    """Start a server with recstore's schema; yield a connection, settings and the URL."""
    parameters = {"shared_buffers": "256MB", "maintenance_work_mem": "512MB"} | parameters
    with temporary_server(version, parameters) as server:
        url = f"postgresql://postgres@/postgres?host={quote(str(server.sockets), safe='')}"
        settings = Settings(database_url=url, home=Path("/nonexistent"))
        with connect(url) as connection:
            connection.execute("SET jit = off")
            schema.upgrade(connection, url, settings)
            yield connection, settings, url


def interactions(
    users: int, items: int, user: NDArray[np.integer[Any]], item: NDArray[np.integer[Any]]
) -> Interactions:
    """Return one view of each pair of positions; ids count from 1."""
    ids = IdMap(pa.array(range(1, users + 1), pa.int64())), IdMap(pa.array(range(1, items + 1), pa.int32()))
    return Interactions(*ids, user.astype(np.int32), item.astype(np.int32), np.ones(len(user)))


def publish(
    url: str,
    settings: Settings,
    pairs: Interactions,
    users: NDArray[np.float32],
    items: NDArray[np.float32],
    weighted: Weighted | None = None,
    fold_in: FoldIn | None = None,
) -> Run:
    """Publish a generation of these factors of the recommender "retail", calibrated as any other; return its run.

    With the confidences of a training by ALS and its input for folding in, SQL can fold in users."""
    with Run(url, settings, "retail", "retrain") as run:
        run.stage("prepare", jobs.prepare, run)
        content = building.Content(
            population=building.Population.of(pairs),
            pulled=None,
            items=vectors.item_vectors(items, run.recommender.dimensions),
            users=vectors.user_vectors(users, run.recommender.dimensions),
            factors=items.shape[1],
            snapshot={},
            filters=[],
            confidence=weighted.model.constants() if weighted else {},
            training={"alpha": weighted.alpha} if weighted else {},
            for_queries=fold_in and trainers.for_queries("als", fold_in),
        )
        assert pipeline.publish(run, content, release=False).live
    return run
