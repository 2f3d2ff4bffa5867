"""Real dated purchases arrive month by month: refreshed vectors keep up with a full retrain, and beat those that stay as trained.

Recall@20 is of the items that a customer buys for the first time in the 30 days after a checkpoint. The table is in
docs/decisions/0031-refresh.md.
"""

import csv
from collections import defaultdict
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


def behind(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Return the share that ours is behind theirs, 0 within two standard errors of the paired difference."""
    difference = theirs - ours
    chance = 2 * difference.std() / len(difference) ** 0.5
    return float(difference.mean() / theirs.mean()) if difference.mean() > chance else 0.0


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

    for name in NAMES:
        shop.create(name, source=Source(query=QUERY), hyperparameters=Hyperparameters(factors=64, warm_iterations=0))
    gains: list[float] = []
    for now in DAYS:
        arrive(now)
        if now == DAYS[0]:
            for name in NAMES:
                assert shop.retrain(name).live
            continue
        done = refresh(shop.url, shop.settings, "refreshed")
        assert shop.retrain("retrained", force=True).live
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
        found = {name: listed(shop, name, tmp_path) for name in NAMES}
        of = {name: recall(answers, bought) for name, answers in found.items()}
        users = value(application, "SELECT count(DISTINCT user_id) FROM shop.events")
        print(
            now,
            {"users": users, "tested": len(bought)},
            done,
            {name: round(float(share.mean()), 4) for name, share in of.items()},
        )
        assert len(found["refreshed"]) == users
        assert {reason for answers in found["refreshed"].values() for _, reason in answers} <= {"trained", "fold_in"}
        assert behind(of["refreshed"], of["retrained"]) < 0.03
        assert behind(of["refreshed"], of["stale"]) <= 0
        gains += [*(of["refreshed"] - of["stale"])]
        for name in ("stale", "refreshed"):
            assert shop.retrain(name, force=True).live
    assert np.mean(gains) > 0
