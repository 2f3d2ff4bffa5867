"""Measure answers as applications ask them: by pgbench, with prepared statements, next to the same query written by hand.

For each PostgreSQL version, number of items and factors: planted items in clusters, users solved exactly against them, a
generation published and calibrated as any other. Each query is asked by 1, 2, 8 and 64 clients; with one client all are asked in
turns, so that their medians compare. The queries written by hand run at the calibrated ef_search and look their vector up by
themselves. Then one more generation is published while readers ask at a steady rate.

    python benchmarks/serving.py
    python benchmarks/serving.py --full
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import Any

import numpy as np
import published
from eligibility import count_hits
from implicit.cpu.als import AlternatingLeastSquares
from measured import BUSY, Measured, machine
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recstore import registry
from recstore.config import Settings
from recstore.definition import Candidates, Definition, Exclusions, Hyperparameters, Source, Storage
from recstore.embedded.programs import tool_path
from recstore.errors import EmbeddedUnavailable
from recstore.model import confidence, trainers
from recstore.model.interactions import Interactions
from recstore.model.trainers import FoldIn
from recstore.operations import recommenders
from recstore.postgres.connection import Connection
from recstore.runs import Run

SHORT = ((18, 4_000, 256), (16, 20_000, 64))
FULL = (
    *(
        (version, items, factors)
        for items in (20_000, 200_000, 1_000_000)
        for factors in (64, 256, 1024)
        for version in (18, 16)
    ),
    (18, 4_000, 256),
    (18, 40_000, 1024),
)
"""PostgreSQL version, items, factors."""

USERS, HEAVY, NEWCOMERS = 4_000, 80, 100
"""Users, of whom the first have most items; the newcomers came after the training."""

K = 10
RATE = 100
"""Queries a second during a publication, or fewer if they would take more than a fifth of a core."""

SEEN = "NOT EXISTS (SELECT FROM shop.views s WHERE s.user_id = :user AND s.item_id = v.item_id)"
HIDDEN = "NOT EXISTS (SELECT FROM shop.hidden h WHERE h.user_id = :user AND h.item_id = v.item_id)"
VISIBLE = "(SELECT p.number < 0.9 FROM shop.products p WHERE p.product_id = v.item_id)"
NEAREST = "ORDER BY v.preference <#> (SELECT u.preference FROM retail.user_vectors u WHERE u.user_id = :user) LIMIT 10"
RECOMMEND = "SELECT r.item_id FROM retail.recommend(:user, 10) r;"
WRITTEN = f"SELECT v.item_id FROM retail.item_vectors v WHERE {SEEN} {NEAREST};"
LIGHT, MOST = f"\\set user random({USERS // 2}, {USERS})", f"\\set user random(1, {HEAVY})"
ITEM, FIFTY = "\\set item random(1, {items})", f"\\set user random({HEAVY}, {USERS - 50})"
OF_FIFTY = "u.user_id BETWEEN :user AND :user + 49"

PLAIN = {
    "similar items": f"{ITEM}\nSELECT s.item_id FROM retail.similar_items(:item, 10) s;",
    "similar items, by hand": f"{ITEM}\nSELECT v.item_id FROM retail.item_vectors v WHERE v.item_id <> :item AND v.users >= 3"
    " ORDER BY v.embedding <=> (SELECT o.embedding FROM retail.item_vectors o WHERE o.item_id = :item) LIMIT 10;",
    "recommend, light user": f"{LIGHT}\n{RECOMMEND}",
    "recommend, light user, by hand": f"{LIGHT}\n{WRITTEN}",
    "recommend, heavy user": f"{MOST}\n{RECOMMEND}",
    "recommend, heavy user, by hand": f"{MOST}\n{WRITTEN}",
    "recommend, folded in": f"\\set user random(1000001, {1_000_000 + NEWCOMERS})\n{RECOMMEND}",
    "a filter of one's own": f"{LIGHT}\nBEGIN;\nSELECT retail.use_search_settings();\nSELECT p.product_id FROM shop.products p"
    " JOIN retail.item_vectors v ON v.item_id = p.product_id WHERE p.number < 0.5"
    " ORDER BY v.preference <#> (SELECT retail.user_vector(:user)) LIMIT 10;\nCOMMIT;",
    "50 users": f"{FIFTY}\nSELECT u.user_id, r.item_id FROM generate_series(:user, :user + 49) u (user_id)"
    " CROSS JOIN LATERAL retail.recommend(u.user_id, 10) r;",
    "50 users, by hand": f"{FIFTY}\nSELECT u.user_id, r.item_id FROM retail.user_vectors u CROSS JOIN LATERAL (SELECT v.item_id"
    f" FROM retail.item_vectors v ORDER BY v.preference <#> u.preference LIMIT 10) r WHERE {OF_FIFTY};",
}
GUARDED = {
    "candidates, exclusions": f"{LIGHT}\n{RECOMMEND}",
    "candidates, exclusions, by hand": f"{LIGHT}\nSELECT v.item_id FROM retail.item_vectors v"
    f" WHERE {SEEN} AND {HIDDEN} AND {VISIBLE} {NEAREST};",
}
"""Scripts of pgbench: without and with candidates (nine tenths of the items) and 20 excluded items of each user."""


@dataclass(frozen=True, eq=False)
class Model:
    """Planted item factors, the pairs of users with tastes in two clusters each, and these users solved exactly."""

    pairs: Interactions
    items: NDArray[np.float32]
    users: NDArray[np.float32]
    weighted: confidence.Weighted
    fold_in: FoldIn

    def publish(self, url: str, settings: Settings) -> Run:
        return published.publish(url, settings, self.pairs, self.users, self.items, self.weighted, self.fold_in)


def plant(items: int, factors: int, definition: Definition, seed: int) -> Model:
    random = np.random.default_rng(seed)
    clusters = max(20, items // 200)
    cluster = np.sort(random.integers(0, clusters, items))
    falling = (
        1 + np.arange(factors, dtype=np.float32) / 16
    ) ** -0.5  # as trained factors, some matter more than others
    vectors = (random.normal(size=(clusters, factors)) * falling).astype(np.float32)
    vectors = vectors[cluster] + 0.7 * random.normal(size=(items, factors)).astype(np.float32) * falling
    vectors *= random.lognormal(0, 0.3, (items, 1)).astype(np.float32) / np.linalg.norm(vectors, axis=1, keepdims=True)
    counts = np.sort(np.clip(random.lognormal(3.3, 1.1, USERS), 3, min(1000, items // 4)).astype(int))[::-1]
    user = np.repeat(np.arange(USERS), counts)
    tastes = random.integers(0, clusters, (USERS, 2))[user, random.integers(0, 2, len(user))]
    first, last = np.searchsorted(cluster, tastes), np.searchsorted(cluster, tastes, side="right")
    item = first + (random.random(len(user)) ** 2 * np.maximum(last - first, 1)).astype(int)
    anywhere = random.random(len(user)) < 0.2
    item[anywhere] = random.integers(0, items, anywhere.sum())
    user, item = np.unique(np.stack([user, np.minimum(item, items - 1)]), axis=1)
    pairs = published.interactions(USERS, items, user, item)
    weighted = confidence.weigh(pairs, definition)
    # so much that unseen items of one's clusters are liked, too, though there are far more items than users
    fold_in = FoldIn(vectors, pairs.item_users(), {"regularization": items / 100})
    return Model(pairs, vectors, trainers.trainer("als").solve_users(weighted.matrix, fold_in), weighted, fold_in)


def load(connection: Connection, model: Model) -> None:
    """Create the application's tables; the newcomers have the items of users of middling activity."""
    connection.execute(
        "CREATE SCHEMA shop; CREATE TABLE shop.views (user_id bigint, item_id integer, PRIMARY KEY (user_id, item_id));"
        " CREATE TABLE shop.hidden (user_id bigint, item_id integer, PRIMARY KEY (user_id, item_id));"
        " CREATE TABLE shop.products (product_id integer PRIMARY KEY, number double precision NOT NULL)"
    )
    with connection.cursor() as cursor, cursor.copy("COPY shop.views FROM STDIN") as copy:
        for row in zip((model.pairs.user_index + 1).tolist(), (model.pairs.item_index + 1).tolist(), strict=True):
            copy.write_row(row)
    connection.execute(
        f"INSERT INTO shop.views SELECT 1000000 + user_id - {USERS // 4}, item_id FROM shop.views"
        f" WHERE user_id > {USERS // 4} AND user_id <= {USERS // 4 + NEWCOMERS};"
        f" INSERT INTO shop.products SELECT n, (n * 7919 % 1000) / 1000.0 FROM generate_series(1, {len(model.items)}) n;"
        f" INSERT INTO shop.hidden SELECT u, (u * 31 + n * 97) % {len(model.items)} + 1"
        f" FROM generate_series(1, {USERS}) u, generate_series(1, 20) n ON CONFLICT DO NOTHING"
    )
    connection.execute("VACUUM ANALYZE")


@dataclass(frozen=True)
class Bench:
    """pgbench against one server. `efs` is what queries written by hand need; `postmaster` is a process number."""

    part: Measured
    cell: dict[str, int]
    clients: list[int]
    rounds: int
    seconds: int
    url: str
    efs: dict[str, int | None]
    postmaster: int

    @property
    def busy(self) -> bool:
        return self.part.load > BUSY * machine()["cores"]

    @property
    def size(self) -> str:
        return f"{self.cell['items']:,} items, {self.cell['factors']} factors, PostgreSQL {self.cell['postgres']}"

    @contextmanager
    def asking(self, script: str, clients: int, seconds: int, *options: str) -> Iterator[tuple[Popen[str], Path]]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "script.sql").write_text(script)
            command = [str(find_pgbench(self.cell["postgres"])), "-n", "-M", "prepared", "-c", str(clients)]
            command += ["-j", str(min(clients, 2)), "-T", str(seconds), "-f", str(folder / "script.sql"), "-l"]
            command += ["--log-prefix", str(folder / "log"), *options, self.url]
            ef = self.efs["similar_ef" if "v.embedding" in script else "recommend_ef"] or 40
            environment = os.environ | {
                "PGOPTIONS": f"-c jit=off -c hnsw.ef_search={ef} -c hnsw.iterative_scan=relaxed_order"
            }
            with Popen(command, env=environment, stdout=PIPE, stderr=STDOUT, text=True) as process:
                try:
                    yield process, folder
                finally:
                    process.kill()

    def ask(self, script: str, clients: int) -> tuple[NDArray[np.float64], float]:
        """Return the milliseconds of each transaction, and the server's processor time for one."""
        before, others = self.processor_ms(), self.children()
        with self.asking(script, clients, self.seconds) as (process, folder):
            times = results(process, folder)[:, 0]
        end = time.monotonic() + 5
        while self.children() - others and time.monotonic() < end:
            time.sleep(0.01)  # until the sessions have ended
        return times, (self.processor_ms() - before) / len(times)

    def children(self) -> set[str]:
        return set(Path(f"/proc/{self.postmaster}/task/{self.postmaster}/children").read_text().split())

    def processor_ms(self) -> float:
        """Return the processor time of the server's processes that have ended."""
        fields = Path(f"/proc/{self.postmaster}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[13:15])) * 1000 / os.sysconf("SC_CLK_TCK")

    def ask_all(self, scripts: Mapping[str, str]) -> dict[str, float]:
        """Add a row for each query and number of clients. Return the median of each with one client, or on a busy machine, where
        queries wait and are slowed, the least processor time of the server for one."""
        found: dict[str, float] = {}
        for clients in self.clients:
            answers: dict[str, list[tuple[NDArray[np.float64], float]]] = {query: [] for query in scripts}
            for _ in range(self.rounds if clients == 1 else 1):
                for query, script in scripts.items():
                    answers[query].append(self.ask(script, clients))
            for query, each in answers.items():
                times, processor = np.concatenate([one for one, _ in each]), min(one for _, one in each)
                figures = percentiles(times) | {"per_second": len(times) / (self.seconds * len(each))}
                self.part.row("latency", **self.cell, query=query, clients=clients, **figures, server_cpu_ms=processor)
                if self.busy:
                    found[query] = min(processor, found.get(query, processor))
                else:
                    found.setdefault(query, figures["p50_ms"])
        return found

    def level(self, stage: str, level: str, limit: float, found: float, unit: str, note: str = "") -> None:
        by = "by the server's processor time, since the machine was busy: " if self.busy else ""
        self.part.level(stage, f"{level}: {self.size}", limit, found, unit, note=by + note)

    def levels(self, times: Mapping[str, float]) -> None:
        ratios = {query: times[query] / times[f"{query}, by hand"] for query in times if f"{query}, by hand" in times}
        fifty = ratios.pop("50 users")
        note = ", ".join(f"{query} {ratio:.2f}" for query, ratio in ratios.items())
        level = "the worst at most 1.3 times the query by hand"
        self.level("SQL functions", level, 1.3, max(ratios.values()), "times", note)
        note = f"{times['50 users']:.1f} ms; by hand without seen items {times['50 users, by hand']:.1f} ms"
        self.level("50 users in one query", "at most 2 times 50 bare vector scans", 2, fifty, "times", note)
        if self.cell["factors"] == 1024 and self.cell["items"] <= 40_000:
            worst = max(times["similar items"], times["recommend, light user"])
            self.level("1024 factors", "queries within 5 ms", 5, worst, "ms")


def results(process: Popen[str], folder: Path) -> NDArray[np.float64]:
    """Return a row for each transaction: its milliseconds, and the time when it ended."""
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"pgbench failed: {said}")
    rows = np.vstack([np.loadtxt(log, usecols=(2, 4, 5), ndmin=2) for log in folder.glob("log.*")])
    return np.column_stack([rows[:, 0] / 1e3, rows[:, 1] + rows[:, 2] / 1e6])


def percentiles(times: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(("p50_ms", "p95_ms", "p99_ms"), np.percentile(times, (50, 95, 99)).tolist(), strict=True))


def find_pgbench(version: int) -> Path:
    """Return the pgbench of the embedded PostgreSQL, or else one that is installed."""
    try:
        return tool_path(version, "pgbench")
    except EmbeddedUnavailable:
        places = os.pathsep.join([os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))])
        if found := shutil.which("pgbench", path=places):
            return Path(found)
        raise SystemExit(
            "There is no pgbench. It comes with pip install 'recstore[embedded]', and on Debian with apt install postgresql."
        ) from None


def one(connection: Connection, query: str) -> Any:
    row = connection.execute(query).fetchone()
    assert row
    return row


def measure(part: Measured, cell: tuple[int, int, int], clients: list[int], rounds: int, seconds: int) -> None:
    version, items, factors = cell
    name = {"postgres": version, "items": items, "factors": factors}
    memory = "4GB" if items * factors > 2e7 else "512MB"
    with published.database(version, shared_buffers=memory, max_connections="120") as (connection, settings, url):
        storage, hyperparameters = Storage(dimensions=factors), Hyperparameters(factors=factors)
        definition = Definition(source=Source(table="shop.views"), storage=storage, hyperparameters=hyperparameters)
        model = plant(items, factors, definition, 1)
        load(connection, model)
        recommenders.create(connection, settings, "retail", definition)
        began = time.time()
        model.publish(url, settings)
        took = time.time() - began
        found = one(connection, "SELECT recommend_ef, similar_ef FROM retail._generation")
        directory = one(connection, "SELECT current_setting('data_directory') AS it")["it"]
        postmaster = int(Path(directory, "postmaster.pid").read_text().split()[0])
        bench = Bench(part, name, clients, rounds, seconds, url, found, postmaster)
        calibrated = "/".join("exact" if each is None else f"ef {each}" for each in found.values())
        part.row("generations", **name, published_s=took, search=calibrated, **recall(connection, model))
        times = bench.ask_all({query: script.format(items=items) for query, script in PLAIN.items()})
        beside_implicit(bench, model)
        publication(bench, settings, model, took, min(RATE, int(200 / times["recommend, light user"])))
        guards = {
            "candidates": Candidates(query="SELECT product_id FROM shop.products WHERE number < 0.9"),
            "exclusions": Exclusions(query="SELECT user_id, item_id FROM shop.hidden"),
        }
        guarded = definition.model_copy(update=guards)
        registry.alter(connection, settings, registry.get(connection, "retail"), guarded)
        bench.levels(times | bench.ask_all(GUARDED))


def recall(connection: Connection, model: Model, questions: int = 100) -> dict[str, float]:
    """Return ANN recall@10 against NumPy's exact lists."""
    random = np.random.default_rng(2)
    seen = model.pairs.matrix(np.ones(len(model.pairs), dtype=np.float32))
    unit = model.items / np.linalg.norm(model.items, axis=1, keepdims=True)
    rare = np.bincount(model.pairs.item_index, minlength=len(unit)) < 3
    hits = {"recommend": 0, "similar_items": 0}
    for user, item in zip(random.integers(0, USERS, questions), random.integers(0, len(unit), questions), strict=True):
        scores, alike = model.items @ model.users[user], unit @ unit[item]
        scores[seen[user].indices] = alike[item] = alike[rare] = -np.inf
        for function, key, row in (("recommend", user, scores), ("similar_items", item, alike)):
            call = f"SELECT r.item_id FROM retail.{function}({key + 1}, {K}) r"
            hits[function] += count_hits(row, connection.execute(call, prepare=False).fetchall(), K)
    return {f"recall, {function}": hit / (K * questions) for function, hit in hits.items()}


def beside_implicit(bench: Bench, model: Model) -> None:
    """Ask implicit's own recommend() for one user at a time and for 50, without a database or a network."""
    seen = model.weighted.matrix
    with threadpool_limits(1, "blas"):
        own = AlternatingLeastSquares(factors=model.items.shape[1], num_threads=1)
        own.user_factors, own.item_factors = model.users, model.items
        for query, size in (("recommend, implicit in memory", 1), ("50 users, implicit in memory", 50)):
            each = []
            for user in np.linspace(HEAVY, USERS - size - 1, 60).astype(int):
                began = time.perf_counter()
                own.recommend(np.arange(user, user + size), seen[user : user + size], N=K)
                each.append(1000 * (time.perf_counter() - began))
            figures = percentiles(np.array(each)) | {"per_second": 1000 / np.mean(each)}
            bench.part.row("latency", **bench.cell, query=query, clients=1, **figures)


def publication(bench: Bench, settings: Settings, model: Model, took: float, rate: int) -> None:
    """Ask at a steady rate while the next generation is published; latencies before, in each stage, at the flip and after."""
    before = 8
    script = f"{LIGHT}\n{RECOMMEND}"
    with bench.asking(script, 2, int(2 * before + 1.5 * took), "--rate", str(rate)) as (process, folder):
        time.sleep(before)
        began = time.time()
        run = model.publish(bench.url, settings)
        ended = time.time()
        answers = results(process, folder)
    offset = time.time() - time.monotonic()
    spans = {"before": (0.0, began), "during": (began, ended), "after": (ended + 1, np.inf)}
    for stage, start in zip(run.stages, run.starts, strict=True):
        spans[stage["stage"]] = (start + offset, start + offset + stage["seconds"])
    spans["flip"] = (spans["flip"][0] - 0.25, spans["flip"][1] + 0.25)
    found = {}
    for phase, (first, last) in spans.items():
        within = answers[(answers[:, 1] >= first) & (answers[:, 1] < last), 0]
        if len(within) >= 20:
            found[phase] = percentiles(within)
            bench.part.row("publication", **bench.cell, phase=phase, queries=len(within), **found[phase])
    flip = next(stage["seconds"] for stage in run.stages if stage["stage"] == "flip")
    bench.part.level("flip", f"under 10 ms: {bench.size}", 10, 1000 * flip, "ms", note=f"with {rate} queries a second")
    ratio = found["during"]["p99_ms"] / found["before"]["p99_ms"]
    phases = "p99 in ms: " + ", ".join(f"{phase} {each['p99_ms']:.1f}" for phase, each in found.items())
    level = f"p99 during a publication at most 1.5 times that before: {bench.size}"
    bench.part.level("readers", level, 1.5, ratio, "times", note=phases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--full", action="store_true", help="every size that fits the memory, and 2 and 64 clients: hours"
    )
    parser.add_argument("--cells", nargs="+", help="only these: VERSION,ITEMS,FACTORS")
    parser.add_argument("--clients", nargs="+", type=int, help="numbers of clients")
    parser.add_argument("--part", default="serving", help="part of the results that these replace")
    options = parser.parse_args()
    clients, rounds, seconds = ([1, 2, 8, 64], 5, 3) if options.full else ([1, 8], 2, 1)
    cells = FULL if options.full else SHORT
    clients = options.clients or clients
    if options.cells:
        cells = tuple(tuple(map(int, cell.split(","))) for cell in options.cells)
    part = Measured(options.part, clients=clients, rounds=rounds, seconds=seconds)
    for version, items, factors in cells:
        needed = items * factors * (48 if factors <= 960 else 32) / 1e9  # rows, graphs and their build; NumPy's arrays
        if needed > 0.7 * machine()["memory_gb"]:
            part.row("left out", postgres=version, items=items, factors=factors, needs_gb=needed)
        else:
            measure(part, (version, items, factors), clients, rounds, seconds)
            part.write()


if __name__ == "__main__":
    main()
