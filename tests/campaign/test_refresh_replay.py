"""Real dated purchases arrive month by month: refreshed vectors keep up with a full retrain, and beat those that stay as trained.

Recall@20 is of the items that a customer buys for the first time in the 30 days after a checkpoint. The table is in
docs/decisions/0031-refresh.md.
"""

import csv
from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from conftest import Database
from numpy.typing import NDArray
from support_sql import rows, value

from recstore import lists
from recstore.definition import Hyperparameters, Source
from recstore.demo import read_data
from recstore.refresh import refresh

DAYS = ["2010-07-01", "2010-08-01", "2010-09-01", "2010-10-01", "2010-11-01"]
"""The first is a training's. At each other one, the generation trained a month before is measured as it is and refreshed, next
to a new one."""

NAMES = ("stale", "refreshed", "retrained")

SEEDS = (1, 2, 3)
"""Trainings that differ in the seed alone differ by 2 % (one standard deviation): the mean of three is compared."""

K = 20

QUERY = """SELECT user_id, product_id AS item_id, count(*) AS value FROM shop.events GROUP BY user_id, product_id"""

Lists = dict[int, list[tuple[int, str]]]


def listed(shop: Database, name: str, folder: Path) -> Lists:
    """The list of every user, as recommend() answers: item and reason."""
    path = folder / f"{name}.csv"
    lists.recommend_all(shop.url, shop.settings, name, path, k=K)
    found: Lists = defaultdict(list)
    with path.open() as file:
        for row in csv.DictReader(file):
            found[int(row["user_id"])].append((int(row["item_id"]), row["reason"]))
    return found


def recall(found: Lists, bought: dict[int, set[int]]) -> NDArray[np.float64]:
    """Of each user."""
    return np.array([len({item for item, _ in found[user]} & items) / len(items) for user, items in bought.items()])


@pytest.mark.campaign
@pytest.mark.statistical
def test_refreshed_vectors_keep_up_with_a_retrain(shop: Database, tmp_path: Path) -> None:
    application = shop.connect("application")
    application.execute(
        "CREATE TABLE shop.history (viewed_at timestamp, user_id bigint, product_id integer);"
        " CREATE TABLE shop.events (LIKE shop.history); CREATE INDEX ON shop.events (user_id);"
        " GRANT SELECT ON shop.events TO worker"
    )
    with application.cursor().copy("COPY shop.history FROM STDIN (FORMAT csv, HEADER)") as copy:
        copy.write(read_data("online_retail_2010_events.csv.gz"))

    def arrive(until: str) -> None:
        application.execute(
            "INSERT INTO shop.events SELECT * FROM shop.history WHERE viewed_at < %s"
            " AND viewed_at > (SELECT coalesce(max(viewed_at), '-infinity') FROM shop.events)",
            [until],
        )
        application.execute("ANALYZE shop.events")

    for name, seed in product(NAMES, SEEDS):
        of_training = Hyperparameters(factors=64, warm_iterations=0, seed=seed)
        shop.create(f"{name}{seed}", source=Source(query=QUERY), hyperparameters=of_training)
    for now in DAYS:
        arrive(now)
        if now == DAYS[0]:
            for name, seed in product(NAMES, SEEDS):
                assert shop.retrain(f"{name}{seed}").live
            continue
        for seed in SEEDS:
            done = refresh(shop.url, shop.settings, f"refreshed{seed}")
            assert shop.retrain(f"retrained{seed}", force=True).live
        bought: dict[int, set[int]] = defaultdict(set)
        for row in rows(
            application,
            "SELECT DISTINCT user_id, product_id FROM shop.history h WHERE viewed_at BETWEEN %s AND %s::date + 30"
            " AND EXISTS (SELECT FROM shop.events e WHERE e.user_id = h.user_id)"
            " AND NOT EXISTS (SELECT FROM shop.events e WHERE e.user_id = h.user_id AND e.product_id = h.product_id)",
            now,
            now,
        ):
            bought[row["user_id"]].add(row["product_id"])
        users = value(application, "SELECT count(DISTINCT user_id) FROM shop.events")
        of: dict[str, float] = {}
        for name in NAMES:
            found = [listed(shop, f"{name}{seed}", tmp_path) for seed in SEEDS]
            of[name] = float(np.mean([recall(answers, bought) for answers in found]))
            if name == "refreshed":
                assert {len(answers) for answers in found} == {users}
                reasons = {reason for answers in found for each in answers.values() for _, reason in each}
                assert reasons <= {"trained", "fold_in"}
        print(now, {"users": users, "tested": len(bought)}, done, {name: round(mean, 4) for name, mean in of.items()})
        assert of["refreshed"] > 0.97 * of["retrained"]
        assert of["refreshed"] > of["stale"]
        for name, seed in product(("stale", "refreshed"), SEEDS):
            assert shop.retrain(f"{name}{seed}", force=True).live
