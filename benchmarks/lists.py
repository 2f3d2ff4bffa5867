"""Measure how long every user's list takes, into a table and a Parquet file, next to the bare matrix product in one run.

Generates a shop (a table of views with its primary key) and a generation of random factors in a temporary server of its own;
then `recstore recommend-all` runs as a process by itself, whose peak memory is printed. The bare product is what every way needs:
blocks of 1,024 users times all items on all cores, nothing else.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import published

from recstore.definition import Definition, Hyperparameters, Publication, Source, Storage
from recstore.model.interactions import Interactions
from recstore.operations import recommenders
from recstore.postgres.connection import Connection
from recstore.publication import loading
from recstore.publication.loading import Scalars


def generated(users: int, items: int, per_user: int, random: np.random.Generator) -> Interactions:
    """As many pairs of every user, an item's popularity falling with its rank r as r^(-2/3)."""
    item = np.sort((items * random.random((users, per_user)) ** 3).astype(np.int32), axis=1)
    first = np.ones_like(item, dtype=bool)
    first[:, 1:] = item[:, 1:] != item[:, :-1]
    user = np.repeat(np.arange(users, dtype=np.int32), first.sum(axis=1))
    return published.interactions(users, items, user, item[first])


def fill(connection: Connection, pairs: Interactions) -> None:
    """Create the application's table."""
    connection.execute("CREATE SCHEMA shop")
    connection.execute("CREATE SCHEMA out")
    connection.execute("CREATE TABLE shop.views (user_id bigint, product_id integer, view_count integer)")
    columns = {
        "user_id": Scalars(pairs.user_index + 1, ">i8"),
        "product_id": Scalars(pairs.item_index + 1, ">i4"),
        "view_count": Scalars(pairs.values, ">i4"),
    }
    loading.copy(connection, "shop.views", columns, len(pairs))
    connection.execute("SET maintenance_work_mem = '1GB'")
    connection.execute("ALTER TABLE shop.views ADD PRIMARY KEY (user_id, product_id)")
    connection.execute("VACUUM ANALYZE shop.views")


def bare(users: int, items: int, factors: int, random: np.random.Generator) -> float:
    """Seconds of the product alone."""
    x = random.normal(size=(users, factors)).astype(np.float32)
    y = np.ascontiguousarray(random.normal(size=(items, factors)).astype(np.float32).T)
    began = time.perf_counter()
    for start in range(0, users, 1024):
        x[start : start + 1024] @ y
    return time.perf_counter() - began


def watched(command: list[str]) -> tuple[dict[str, Any], int]:
    """Return what the command printed, and its peak memory in MB, which Linux keeps for a program, not for its fork."""
    with tempfile.TemporaryFile("w+") as out, subprocess.Popen(command, stdout=out) as process:
        peak = 0
        while process.poll() is None:
            with suppress(OSError):
                found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
                peak = max(peak, int(found[1]) // 1024 if found else 0)
            time.sleep(0.2)
        out.seek(0)
        return json.load(out), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument(
        "--views", type=int, default=20, help="pairs of each user, before those that are there twice go"
    )
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--into", nargs="*", default=["table", "parquet"], choices=["table", "parquet", "csv"])
    given = parser.parse_args()
    random = np.random.default_rng(given.seed)
    with published.database() as (connection, settings, url), tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        pairs = generated(given.users, given.items, given.views, random)
        fill(connection, pairs)
        definition = Definition(
            source=Source(table="shop.views", user="user_id", item="product_id", value="view_count"),
            hyperparameters=Hyperparameters(factors=given.factors),
            storage=Storage(dimensions=given.factors),
            publication=Publication(search="exact"),
        )
        recommenders.create(connection, settings, "retail", definition)
        users, items = (
            random.normal(size=(number, given.factors)).astype(np.float32) for number in (given.users, given.items)
        )
        published.publish(url, settings, pairs, users, items)
        print(
            f"{given.users:,} users, {given.items:,} items, {given.factors} factors, {len(pairs):,} pairs, lists of {given.k},"
            f" {os.cpu_count()} cores; made in {time.perf_counter() - began:.0f} s",
            flush=True,
        )
        del pairs, users, items
        product = bare(given.users, given.items, given.factors, random)
        print(f"bare product: {product:.1f} s", flush=True)
        for kind in given.into:
            into = {"table": "out.recommendations"}.get(kind, f"{folder}/recommendations.{kind}")
            command = [sys.executable, "-m", "recstore", "--database", url, "recommend-all", "retail"]
            command += ["--into", into, "-k", str(given.k), "--json"]
            made, peak = watched(command)
            print(
                f"into {kind}: {made['seconds']:.1f} s, {made['seconds'] / product:.2f} of the bare product;"
                f" {made['rows']:,} rows; at most {peak} MB of memory",
                flush=True,
            )


if __name__ == "__main__":
    main()
