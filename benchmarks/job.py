"""Measure the whole job next to what a user would otherwise write, and next to floors that no program can undercut.

The demo's data, expanded (`expand.py`), in a temporary server. Each step runs in a process of its own (`steps.py`), and all take
turns, round after round; ratios are of medians. With `--growth` recstore's job runs alone, once for each size.

    python benchmarks/job.py --interactions 1000000
    python benchmarks/job.py --interactions 10000000 --rounds 2
    python benchmarks/job.py --growth 1000000 3000000 10000000 30000000 100000000
"""

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import expand
from measured import Measured, commit, stored

from recstore.config import Settings
from recstore.definition import Definition, Hyperparameters, Source
from recstore.embedded import temporary_server
from recstore.embedded.programs import tool_path
from recstore.operations import recommenders, schema
from recstore.postgres.connection import Connection, connect
from recstore.types import IdType

TABLES = {"bigint": IdType.BIGINT, "uuid": IdType.UUID, "text": IdType.TEXT}
QUERY = "SELECT v.user_id, v.item_id, sum(v.value) AS value FROM shop.bigint v WHERE v.value < 1000 GROUP BY v.user_id, v.item_id"
SERVER = {"shared_buffers": "1GB", "max_wal_size": "8GB", "work_mem": "64MB", "maintenance_work_mem": "1GB"}

COMMANDS = (["--help"], ["--version"], ["list"], ["status"], ["show", "bigint"], ["runs", "bigint"])


class Bench:
    """A server with the shop's tables, and recommenders over them."""

    def __init__(self, url: str, pid: int, connection: Connection, options: argparse.Namespace) -> None:
        self.url, self.pid, self.connection, self.options = url, pid, connection, options
        self.settings = Settings(database_url=url, home=Path("/nonexistent"))
        self.psql = str(tool_path(18, "psql"))

    def create(self, name: str, source: Source, factors: int | None = None) -> None:
        factors = factors or self.options.factors
        hyperparameters = Hyperparameters(factors=factors, warm_iterations=0, iterations=self.options.iterations)
        definition = Definition(source=source, hyperparameters=hyperparameters)
        recommenders.create(self.connection, self.settings, name, definition)

    def load(self, kind: str, interactions: int) -> None:
        """Load a table of expanded interactions with ids of this type, and create its recommender."""
        began, expanded = time.perf_counter(), expand.Expanded(interactions, self.options.seed)
        self.connection.execute("CREATE SCHEMA IF NOT EXISTS shop")
        expand.load(self.connection, expanded, TABLES[kind], f"shop.{kind}")
        self.create(kind, Source(table=f"shop.{kind}", value="value"))
        print(f"{interactions:,} interactions, {kind}: loaded in {time.perf_counter() - began:.1f} s", flush=True)

    def step(self, step: str, **given: Any) -> dict[str, Any]:
        """Run one step in a process of its own; add the WAL written, and the server's processor time and peak of memory."""
        before, cpu = self.position(), server_cpu(self.pid)
        with watched(self.pid) as highest:
            done = subprocess.run(
                [sys.executable, str(Path(__file__).parent / "steps.py"), step, json.dumps(given)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        found["both_cpu"] = found["cpu"] + server_cpu(self.pid) - cpu
        return found | {"server_mb": max(highest, default=0.0), "wal_mb": (self.position() - before) / 2**20}

    def position(self) -> int:
        row = self.connection.execute("SELECT pg_current_wal_lsn() - '0/0' AS bytes").fetchone()
        assert row
        return int(row["bytes"])

    def run_psql(self, *commands: str) -> dict[str, Any]:
        """Run commands in psql, its output to nowhere."""
        words = [word for command in commands for word in ("-c", command)]
        began, cpu = time.perf_counter(), server_cpu(self.pid) + children_cpu()
        subprocess.run([self.psql, "-XqAt", self.url, *words], stdout=subprocess.DEVNULL, check=True)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "both_cpu": server_cpu(self.pid) + children_cpu() - cpu}

    def copy_out(self, name: str) -> dict[str, Any]:
        import steps

        return self.run_psql(f"COPY ({steps.SELECT.format(name=name)}) TO STDOUT (FORMAT binary)")


def children_cpu() -> float:
    """Return the processor time of processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def processes(postmaster: int) -> Iterator[tuple[Path, list[str]]]:
    """Yield each process of the server: its folder in /proc, and the fields of its `stat` from the state on."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has ended
            continue
        if fields[1] == str(postmaster) or status.parent.name == str(postmaster):
            yield status.parent, fields


def server_cpu(postmaster: int) -> float:
    """Return the processor time of the server's processes, those that have ended included."""
    ticks = 0
    for folder, fields in processes(postmaster):
        ticks += sum(int(field) for field in fields[11 : 15 if folder.name == str(postmaster) else 13])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def watched(postmaster: int, pause: float = 0.5) -> Iterator[list[float]]:
    """Sample the proportional memory of the server's processes in MB, shared memory counted once."""
    found, ended = list[float](), threading.Event()

    def watch() -> None:
        while not ended.wait(pause):
            total = 0
            for folder, _ in processes(postmaster):
                with suppress(OSError, StopIteration):  # it has ended
                    lines = (folder / "smaps_rollup").read_text().splitlines()
                    total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            found.append(total / 1024)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()


@contextmanager
def bench(options: argparse.Namespace) -> Iterator[Bench]:
    with temporary_server(18, SERVER) as server, connect(server.url) as connection:
        settings = Settings(database_url=server.url, home=Path("/nonexistent"))
        schema.upgrade(connection, server.url, settings)
        yield Bench(server.url, server.pid, connection, options)


def median(rows: list[dict[str, Any]], key: str = "seconds") -> float:
    return statistics.median(row[key] for row in rows)


def stages(rows: list[dict[str, Any]], key: str = "seconds") -> dict[str, float]:
    """Return the median of each stage."""
    return {name: statistics.median(row["stages"][name][key] for row in rows) for name in rows[0]["stages"]}


# each part of the comparison


def measure_reads(bench: Bench, measured: Measured) -> None:
    """Compare the read with psql's COPY to nowhere and pandas, for each type of id, and for a query."""
    for kind in bench.options.sources:
        rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for _ in range(bench.options.rounds):
            rows["recstore"].append(bench.step("read", url=bench.url, name=kind))
            rows["psql"].append(bench.copy_out(kind))
            rows["pandas"].append(bench.step("pandas_read", url=bench.url, name=kind))
        ours, copy, pandas = (median(rows[name]) for name in ("recstore", "psql", "pandas"))
        memory = median(rows["recstore"], "grew_mb"), median(rows["pandas"], "grew_mb")
        figures = {"recstore_s": ours, "psql_copy_s": copy, "pandas_s": pandas, "times_copy": ours / copy}
        figures |= {"pandas_times": pandas / ours, "memory_mb": memory[0], "pandas_memory_mb": memory[1]}
        cpu = {name: median(each, "both_cpu") for name, each in rows.items()}
        figures |= {f"{name}_cpu_s": seconds for name, seconds in cpu.items()}
        measured.row("read", source=kind, **figures)
        note = f"processor time of client and server: {cpu['recstore'] / cpu['psql']:.2g} times COPY's"
        copies, faster = (1.5, 6) if kind == "bigint" else (2.5, 4)
        source = "a query, bigint ids" if kind == "query" else f"a table, {kind} ids"
        stage = f"read, {source}"
        measured.level(
            stage, f"at most {copies} times psql's binary COPY to nowhere", copies, ours / copy, "times", note=note
        )
        measured.level(stage, f"{faster} times faster than pandas.read_sql", faster, pandas / ours, "times", least=True)
        if kind == "bigint":
            measured.level(
                stage, "a fourth of pandas.read_sql's memory (grown by)", 25, 100 * memory[0] / memory[1], "%"
            )


def measure_job(bench: Bench, measured: Measured, name: str = "bigint") -> None:
    """Compare each stage of the job with its floor, and the whole with the opponents."""
    with tempfile.TemporaryDirectory(prefix="recstore-bench-") as folder:
        file = str(Path(folder) / "matrix.npz")
        bench.step("matrix", url=bench.url, name=name, file=file)
        first = bench.step("job", url=bench.url, name=name, profiled=["read", "solve users", "index", "calibrate"])
        training = bench.connection.execute(
            "SELECT g.training FROM recstore_private.generations g WHERE g.ready_at IS NOT NULL ORDER BY g.generation DESC"
        ).fetchone()
        assert training
        settings = {key: training["training"][key] for key in ("factors", "iterations", "regularization")}
        files = dumped(bench, name, Path(folder))
        rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for number in range(bench.options.rounds):
            rows["recstore"].append(bench.step("job", url=bench.url, name=name, profiled=[]))
            rows["implicit alone"].append(bench.step("implicit", file=file, **settings))
            rows["COPY in"].append(copy_in(bench, files))
            rows["CREATE INDEX"].append(create_indexes(bench))
            if number == 0 or bench.options.interactions <= 1_000_000:
                rows["careful"].append(bench.step("careful", url=bench.url, name=name, **settings))
                rows["tutorial"].append(bench.step("tutorial", url=bench.url, name=name, **settings))
    report_job(measured, rows, first, settings["iterations"])


def dumped(bench: Bench, name: str, folder: Path) -> list[Path]:
    """Write the live generation's tables to files as binary COPY, and keep their definitions; return the files."""
    found = bench.connection.execute(
        "SELECT c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relkind = 'r' AND c.relname ~ (SELECT '_' || max(g.generation) || '$' FROM"
        " recstore_private.generations g WHERE g.ready_at IS NOT NULL)",
        [name],
    ).fetchall()
    for row in found:
        table = f'{name}."{row["name"]}"'
        bench.connection.execute(f'CREATE TABLE shop."like{row["name"]}" (LIKE {table} INCLUDING STORAGE)')
        bench.run_psql(f"\\copy {table} TO '{folder / row['name']}' (FORMAT binary)")
    return [folder / row["name"] for row in found]


def copy_in(bench: Bench, files: list[Path]) -> dict[str, Any]:
    """Load the same bytes into tables of the same columns."""
    for file in files:
        bench.connection.execute(f'DROP TABLE IF EXISTS shop."{file.name}"')
        bench.connection.execute(f'CREATE TABLE shop."{file.name}" (LIKE shop."like{file.name}" INCLUDING STORAGE)')
    return bench.run_psql(*(f"\\copy shop.\"{file.name}\" FROM '{file}' (FORMAT binary)" for file in files))


def create_indexes(bench: Bench) -> dict[str, Any]:
    """Build both HNSW indexes and the indexes for lookups on the tables that `copy_in` loaded."""
    names = [
        row["name"]
        for row in bench.connection.execute(
            "SELECT c.relname AS name FROM pg_class c WHERE c.relnamespace = 'shop'::regnamespace AND c.relname ~ '^_.*_[0-9]+$'"
            " AND c.relkind = 'r'"
        ).fetchall()
    ]
    items, users, fold_in = (next(name for name in names if side in name) for side in ("items", "users", "fold_in"))
    memory = ("SET max_parallel_maintenance_workers = 2", "SET maintenance_work_mem = '1GB'")
    return bench.run_psql(
        *memory,
        f'CREATE UNIQUE INDEX ON shop."{items}" (item_id)',
        f'CREATE INDEX ON shop."{items}" (users DESC, views DESC, item_id)',
        f'CREATE UNIQUE INDEX ON shop."{users}" (user_id)',
        f'CREATE UNIQUE INDEX ON shop."{fold_in}" (item_id)',
        f'CREATE INDEX ON shop."{items}" USING hnsw (embedding vector_cosine_ops)',
        f'CREATE INDEX ON shop."{items}" USING hnsw (preference vector_ip_ops)',
    )


def report_job(
    measured: Measured, rows: dict[str, list[dict[str, Any]]], first: dict[str, Any], iterations: int
) -> None:
    ours, whole = stages(rows["recstore"]), median(rows["recstore"])
    cpu, peak = stages(rows["recstore"], "cpu"), stages(rows["recstore"], "peak_mb")
    for stage, seconds in ours.items():
        measured.row(
            "stages", stage=stage, seconds=seconds, share=seconds / whole, cpu_s=cpu[stage], peak_mb=peak[stage]
        )
    for name, found in rows.items():
        if "peak_mb" not in found[0] or name == "implicit alone":
            measured.row("floors", name=name, seconds=median(found))
            continue
        training = ours["train"] if name == "recstore" else median([row["stages"] for row in found], "train")
        figures = {"seconds": median(found), "outside_training_s": median(found) - training}
        measured.row("whole job", name=name, **figures, **{key: median(found, key) for key in SIZES})
        if name != "recstore":
            each = {key: median([row["stages"] for row in found], key) for key in found[0]["stages"]}
            measured.row(f"stages of {name}", **each)
    builds = statistics.median(sum(row["builds"]) for row in rows["recstore"])
    floor, alone = median(rows["CREATE INDEX"]), median(rows["implicit alone"])
    level = partial(measured.level, unit="times")
    note = f"processor time: {cpu['train'] / median(rows['implicit alone'], 'cpu'):.3g} times"
    level("train", "1.05 times implicit alone on the ready matrix", 1.05, ours["train"] / alone, note=note)
    note = f"processor time: {cpu['solve users'] / cpu['train'] * iterations:.3g} iterations"
    users = ours["solve users"] / ours["train"] * iterations
    level("exact users", "at most one iteration of the training", 1, users, note=note)
    together = sum(ours[name] for name in ("gate", "hold out", "weigh", "vectors"))
    job = whole + ours["train"] * (ITERATIONS / iterations - 1)
    measured.level("gate, hold out, weigh, vectors", "5 % of the job", 5, 100 * together / job, "%")
    level("load", "1.5 times psql's COPY in of the same bytes", 1.5, ours["load"] / median(rows["COPY in"]))
    note = f"{len(rows['recstore'][0]['builds'])} graphs built; alone: 2"
    level("index", "1.1 times CREATE INDEX alone", 1.1, (ours["index"] + builds) / floor, note=note)
    level("calibrate", "0.3 times CREATE INDEX alone", 0.3, (ours["calibrate"] - builds) / floor)
    measured.level("flip", "under 10 ms", 10, 1000 * ours["flip"], "ms")
    outside = whole - ours["train"]
    theirs = median(rows["tutorial"]) - median([row["stages"] for row in rows["tutorial"]], "train")
    level("whole job", "4 times faster than (a) outside the training", 4, theirs / outside, least=True)
    share = 100 * median(rows["recstore"], "peak_mb") / median(rows["tutorial"], "peak_mb")
    measured.level("whole job", "a fourth of (a)'s memory", 25, share, "%")
    for stage, functions in first["profiles"].items():
        for row in functions:
            measured.row(f"profile of {stage}", **row)


SIZES = ("peak_mb", "server_mb", "wal_mb", "cpu", "both_cpu")


def measure_commands(bench: Bench) -> None:
    """Time commands that only look, next to Python's own start: a part of its own."""
    measured = Measured("commands", rounds=max(5, bench.options.rounds))
    program, times = str(Path(sys.executable).parent / "recstore"), defaultdict[str, list[tuple[float, float]]](list)
    variables = os.environ | {"RECSTORE_DATABASE_URL": bench.url}
    calls = {f"recstore {' '.join(words)}": [program, *words] for words in COMMANDS}
    for _ in range(max(5, bench.options.rounds)):
        for name, words in ({"python -c pass": [sys.executable, "-c", "pass"]} | calls).items():
            cpu, began = children_cpu(), time.perf_counter()
            subprocess.run(words, env=variables, check=True, stdout=subprocess.DEVNULL)
            times[name].append((time.perf_counter() - began, children_cpu() - cpu))
    for name, found in times.items():
        seconds, cpu = (statistics.median(column) for column in zip(*found, strict=True))
        measured.row("commands", command=name, seconds=seconds, cpu_s=cpu)
        if name != "python -c pass":
            busy = measured.load > len(os.sched_getaffinity(0))
            note = f"processor time, since the machine is busy; {seconds:.2f} s passed" if busy else ""
            measured.level("command start", f"0.4 s: {name}", 0.4, cpu if busy else seconds, "s", note=note)

    timed = [sys.executable, "-X", "importtime", program, "list"]
    found = subprocess.run(timed, env=variables, check=True, capture_output=True, text=True).stderr
    packages = defaultdict[str, float](float)
    for line in found.splitlines():
        own, _, module = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():
            packages[module.strip().partition(".")[0]] += int(own) / 1e6
    for package in sorted(packages, key=lambda one: -packages[one])[:8]:
        measured.row("profile of command start", imported=package, seconds=packages[package])
    measured.write()


def compare(options: argparse.Namespace) -> None:
    part = "job" if options.interactions <= 1_000_000 else "job_full"
    measured = Measured(part, **vars(options), server=SERVER)
    with bench(options) as one:
        for kind in TABLES:
            if kind in options.sources:
                one.load(kind, options.interactions)
        one.create("query", Source(query=QUERY))
        if part == "job":
            measure_commands(one)
        if not options.commands:
            measure_reads(one, measured)
            measure_job(one, measured)
            measured.write()


def estimated_mb(url: str, name: str) -> float:
    """Return what doctor expects of a training, as its user reads it."""
    from recstore import Recstore

    found = Recstore(url).doctor(name)
    (need,) = (one.found for one in found if one.check == "training-memory")
    return 1024 * float(need.split("about ")[1].split(" GB")[0])


WIDER_AT = 10_000_000
"""Interactions of the job that runs with twice the factors too."""

ITERATIONS = Hyperparameters().iterations
"""Iterations of a training; the time of one with fewer is multiplied."""


def grow(options: argparse.Namespace) -> None:
    """Run recstore's job once for each size, and compare its memory with the estimate that a user sees before.

    What was measured of other sizes stays.
    """
    measured = Measured("growth", factors=options.factors, seed=options.seed, server=SERVER)
    for table, rows in (stored(measured.part) or {}).get("tables", {}).items():
        measured.tables[table] = [row for row in rows if row["interactions"] not in options.growth]
    for interactions in options.growth:
        with bench(options) as one:
            one.load("bigint", interactions)
            grown(one, measured, "bigint", interactions, options.factors)
            if interactions == WIDER_AT:
                one.create("wide", Source(table="shop.bigint", value="value"), 2 * options.factors)
                grown(one, measured, "wide", interactions, 2 * options.factors)
        for rows in measured.tables.values():
            rows.sort(key=lambda row: (row["interactions"], row["factors"]))
        judge_growth(measured)
        measured.write()


def grown(one: Bench, measured: Measured, name: str, interactions: int, factors: int) -> None:
    estimate, load = estimated_mb(one.url, name), os.getloadavg()[0]
    found = one.step("job", url=one.url, name=name, profiled=[])
    iterations, training = one.options.iterations, found["stages"]["train"]
    for row, key in ((found, "seconds"), (found, "cpu"), (found, "both_cpu"), (training, "seconds"), (training, "cpu")):
        row[key] += training["cpu" if "cpu" in key else "seconds"] * (ITERATIONS / iterations - 1)
    size = {key: found["stages"]["read"][key] for key in ("users", "items")}
    figures = {key: found[key] for key in ("seconds", *SIZES)} | {"estimate_mb": estimate, "load_before": load}
    figures |= {"load_after": os.getloadavg()[0], "commit": commit()}
    measured.row("job", interactions=interactions, factors=factors, iterations=iterations, **size, **figures)
    for stage, row in found["stages"].items():
        figures = {key: row[key] for key in ("seconds", "cpu", "peak_mb")}
        measured.row("stages", interactions=interactions, factors=factors, stage=stage, **figures)


def judge_growth(measured: Measured) -> None:
    measured.levels, factors = [], measured.settings["factors"]
    jobs = {(row["interactions"], row["factors"]): row for row in measured.tables["job"]}
    for (interactions, each), row in jobs.items():
        wrong = 100 * abs(row["estimate_mb"] - row["peak_mb"]) / row["peak_mb"]
        stage = f"memory, {interactions:,} interactions, {each} factors"
        measured.level(stage, "the estimate before the run within 25 % of the peak", 25, wrong, "%")
    if largest := jobs.get((100_000_000, factors)):
        memory = (largest["peak_mb"] + largest["server_mb"]) / 1024
        measured.level("100 million interactions", "worker and PostgreSQL together under 16 GiB", 16, memory, "GB")
        trainings = {
            (row["interactions"], row["factors"]): row["cpu"]
            for row in measured.tables["stages"]
            if row["stage"] == "train"
        }
        if wide := trainings.get((WIDER_AT, 2 * factors)):
            rows = [row for row in measured.tables["stages"] if row["factors"] == factors]
            seconds = on_six_cores(rows, wide / trainings[WIDER_AT, factors])
            note = "processor time, of training and exact users divided by the cores; load, index and calibration as measured"
            stage = f"80 million pairs, {2 * factors} factors"
            measured.level(stage, "17 minutes on 6 cores, by the growth curve", 1020, seconds, "s", note=note)


def on_six_cores(rows: list[dict[str, Any]], wider: float, pairs: float = 8e7, cores: int = 6) -> float:
    """Return the seconds of a job of so many pairs, each stage by a power law through its two sizes next to that.

    Where the process computes its processor time counts, which other work on the machine hardly changes.
    """
    sizes = sorted({row["interactions"] for row in rows})
    above = next(size for size in sizes if size >= pairs)
    below = max(size for size in sizes if size < above)
    total = 0.0
    for stage in {row["stage"] for row in rows}:
        key = "seconds" if stage in ("load", "index", "calibrate", "check", "flip") else "cpu"
        less, more = (
            max(row[key], 1e-3)
            for size in (below, above)
            for row in rows
            if row["stage"] == stage and row["interactions"] == size
        )
        power = math.log(more / less) / math.log(above / below)
        seconds = more * (pairs / above) ** power
        total += seconds * wider / cores if stage in ("train", "solve users") else seconds
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--sources", nargs="+", default=[*TABLES, "query"], help="tables by type of id; bigint is a must"
    )
    parser.add_argument("--commands", action="store_true", help="the start of commands only")
    parser.add_argument("--growth", type=int, nargs="+")
    options = parser.parse_args()
    (grow if options.growth else compare)(options)


if __name__ == "__main__":
    main()
