"""The steps that `job.py` measures, each in a process of its own: recstore's job, the opponents', and floors.

    python benchmarks/steps.py STEP JSON

prints as JSON what the step returns, the highest resident memory of its process, and its processor time. The opponents are
(a) the pipeline found in tutorials, `tutorial`, and (b) a careful one, `careful`; both train with the settings of recstore's run.
"""

import cProfile
import json
import pstats
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

SELECT = "SELECT i.user_id, i.item_id, i.value::float8 AS value FROM {name}.interactions i"
"""The query of recstore's own read, and of every opponent's."""


class Clock(dict[str, float]):
    @contextmanager
    def __call__(self, stage: str) -> Any:
        began = time.perf_counter()
        yield
        self[stage] = time.perf_counter() - began


def peak_mb(reset: bool = False) -> float:
    """Return the highest resident memory of this process since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return peak


# recstore


def job(url: str, name: str, profiled: list[str]) -> dict[str, Any]:
    """Run the whole job; return each stage's seconds, processor time and peak memory, and profiles of those asked for."""
    from recstore import pipeline
    from recstore.config import Settings
    from recstore.publication import indexes
    from recstore.runs import Run

    stages: dict[str, dict[str, float]] = {}
    profiles, builds, outer = {}, [], Run.stage
    build = indexes.build_hnsw

    def timed_build(*arguments: Any, **options: Any) -> None:
        began = time.perf_counter()
        build(*arguments, **options)
        builds.append(time.perf_counter() - began)

    def stage(self: Run, stage_name: str, step: Any, *arguments: Any, **options: Any) -> Any:
        profiler = cProfile.Profile() if stage_name in profiled else None
        highest.append(peak_mb(reset=True))
        cpu = time.process_time()
        if profiler:
            profiler.enable()
        try:
            return outer(self, stage_name, step, *arguments, **options)
        finally:
            if profiler:
                profiler.disable()
                profiles[stage_name] = functions(profiler)
            highest.append(peak_mb())
            stages[stage_name] = {"cpu": time.process_time() - cpu, "peak_mb": highest[-1]} | self.stages[-1]

    highest: list[float] = []
    indexes.build_hnsw, Run.stage = timed_build, stage
    began = time.perf_counter()
    outcome = pipeline.retrain(url, Settings(database_url=url, home=Path("/nonexistent")), name, force=True)
    seconds = time.perf_counter() - began
    assert outcome.live
    return {
        "seconds": seconds,
        "stages": stages,
        "builds": builds,
        "profiles": profiles,
        "peak_mb": max(*highest, peak_mb()),
    }


def functions(profiler: cProfile.Profile, most: int = 8) -> list[dict[str, Any]]:
    """Return the functions in which most of the time goes."""
    stats: Any = pstats.Stats(profiler)
    rows = sorted(stats.stats.items(), key=lambda row: -row[1][2])[:most]
    return [
        {"function": f"{Path(file).name}:{line} {function}"[:90], "calls": calls, "seconds": own}
        for (file, line, function), (_, calls, own, _, _) in rows
    ]


def read(url: str, name: str) -> dict[str, Any]:
    """Read the source as a retrain does: ids mapped, rows checked, sorted and merged, digest taken."""
    from recstore import registry
    from recstore.config import Settings
    from recstore.postgres.connection import connect
    from recstore.source import pulling

    settings = Settings(database_url=url, home=Path("/nonexistent"))
    with connect(url) as connection:
        recommender = registry.get(connection, name)
        before, began, cpu = peak_mb(), time.perf_counter(), time.process_time()
        source = recommender.definition.source
        pulled = pulling.read(connection, url, settings, recommender, source, application_name="recstore:bench")
        return {
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - cpu,
            "pairs": len(pulled.interactions),
            "grew_mb": peak_mb() - before,
        }


def matrix(url: str, name: str, file: str) -> dict[str, Any]:
    """Store the matrix that a retrain trains on, for `implicit` alone."""
    from scipy import sparse

    from recstore import registry
    from recstore.config import Settings
    from recstore.model import confidence, filters, held_out
    from recstore.postgres.connection import connect
    from recstore.source import pulling

    settings = Settings(database_url=url, home=Path("/nonexistent"))
    with connect(url) as connection:
        recommender = registry.get(connection, name)
        definition = recommender.definition
        pulled = pulling.read(connection, url, settings, recommender, definition.source, application_name="recstore")
    kept, _ = filters.apply(pulled.interactions, definition.filters)
    held = held_out.choose(kept, recommender.held_out_key, definition.gate.held_out)
    weighted = confidence.weigh(kept.part(~held.pairs), definition)
    sparse.save_npz(file, weighted.matrix, compressed=False)
    return {"shape": weighted.matrix.shape, "pairs": int(weighted.matrix.nnz)}


# floors


def implicit(file: str, factors: int, iterations: int, regularization: float, **_: Any) -> dict[str, Any]:
    """Train on a ready matrix by `implicit` alone."""
    from scipy import sparse

    loaded = sparse.load_npz(file).tocsr()
    clock, cpu = Clock(), time.process_time()
    with clock("train"):
        fit(loaded, factors, iterations, regularization)
    return {"seconds": clock["train"], "cpu": time.process_time() - cpu}


def fit(matrix: Any, factors: int, iterations: int, regularization: float) -> Any:
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=factors, regularization=regularization, alpha=1.0, iterations=iterations
        )
        model.fit(matrix, show_progress=False)
    return model


# opponents


def pandas_read(url: str, name: str) -> dict[str, Any]:
    clock, before, cpu = Clock(), _imported(), time.process_time()
    _pandas(url, name, clock)
    return {"seconds": clock["read"], "cpu": time.process_time() - cpu, "grew_mb": peak_mb() - before}


def _imported() -> float:
    import pandas  # noqa: F401
    import sqlalchemy  # noqa: F401

    return peak_mb()


def _pandas(url: str, name: str, clock: Clock) -> tuple[Any, Any, Any]:
    import pandas
    import sqlalchemy
    from scipy import sparse

    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with clock("read"):
        frame = pandas.read_sql(SELECT.format(name=name), engine)
    with clock("map ids"):
        users, items = frame["user_id"].astype("category"), frame["item_id"].astype("category")
    with clock("matrix"):
        shape = len(users.cat.categories), len(items.cat.categories)
        values = 1 + frame["value"].astype("float32")
        made = sparse.csr_matrix((values, (users.cat.codes, items.cat.codes)), shape=shape)
    return made, users.cat.categories, items.cat.categories


def tutorial(url: str, name: str, **settings: Any) -> dict[str, Any]:
    """Do (a): read_sql, category codes, implicit, executemany upserts into indexed tables."""
    import psycopg
    from pgvector.psycopg import register_vector

    clock = Clock()
    made, users, items = _pandas(url, name, clock)
    with clock("train"):
        model = fit(made, settings["factors"], settings["iterations"], settings["regularization"])
    with psycopg.connect(url, autocommit=True) as connection:
        register_vector(connection)
        for table, ids, vectors in (("items", items, model.item_factors), ("users", users, model.user_factors)):
            connection.execute(f"DROP TABLE IF EXISTS tutorial_{table}")
            kind = "uuid" if "uuid" in name else "text" if "text" in name else "bigint"
            connection.execute(f"CREATE TABLE tutorial_{table} (id {kind} PRIMARY KEY, v vector({vectors.shape[1]}))")
            if table == "items":
                connection.execute("CREATE INDEX ON tutorial_items USING hnsw (v vector_ip_ops)")
            rows = list(zip(ids.tolist(), vectors, strict=True))
            upsert = f"INSERT INTO tutorial_{table} VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v"
            with clock(f"write {table}"), connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(upsert, rows)
    return {"seconds": sum(clock.values()), "stages": dict(clock)}


def careful(url: str, name: str, **settings: Any) -> dict[str, Any]:
    """Do (b): COPY rows by psycopg, NumPy's unique, implicit, COPY of vectors, one index."""
    import psycopg
    from pgvector.psycopg import register_vector
    from scipy import sparse

    clock = Clock()
    with psycopg.connect(url, autocommit=True) as connection:
        register_vector(connection)
        kind = "uuid" if "uuid" in name else "text" if "text" in name else "int8"
        out = f"COPY ({SELECT.format(name=name)}) TO STDOUT (FORMAT binary)"
        with clock("read"), connection.cursor() as cursor, cursor.copy(out) as copy:
            copy.set_types([kind, kind, "float8"])
            users, items, values = (np.array(column) for column in zip(*copy.rows(), strict=True))
        with clock("map ids"):
            (users, user), (items, item) = (np.unique(side, return_inverse=True) for side in (users, items))
        with clock("matrix"):
            made = sparse.csr_matrix((1 + values.astype(np.float32), (user, item)), shape=(len(users), len(items)))
        with clock("train"):
            model = fit(made, settings["factors"], settings["iterations"], settings["regularization"])
        for table, ids, vectors in (("items", items, model.item_factors), ("users", users, model.user_factors)):
            kind = {"int8": "bigint"}.get(kind, kind)
            connection.execute(f"DROP TABLE IF EXISTS careful_{table}")
            connection.execute(f"CREATE TABLE careful_{table} (id {kind}, v vector({vectors.shape[1]}))")
            into = f"COPY careful_{table} FROM STDIN (FORMAT binary)"
            with clock(f"write {table}"), connection.cursor() as cursor, cursor.copy(into) as copy:
                copy.set_types([kind, "vector"])
                for row in zip(ids.tolist(), vectors, strict=True):
                    copy.write_row(row)
            with clock(f"index {table}"):
                connection.execute(f"ALTER TABLE careful_{table} ADD PRIMARY KEY (id)")
        with clock("index"):
            connection.execute("CREATE INDEX ON careful_items USING hnsw (v vector_ip_ops)")
    return {"seconds": sum(clock.values()), "stages": dict(clock)}


def main() -> None:
    step, given = sys.argv[1], json.loads(sys.argv[2])
    found = globals()[step](**given)
    print(json.dumps({"peak_mb": peak_mb(), "cpu": time.process_time()} | found))


if __name__ == "__main__":
    main()
