"""Interactions that several tests train on. Tests change none of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from recstore.model.interactions import IdMap, Interactions, InteractionsBuilder
from recstore.types import IdType


@pytest.fixture(scope="session")
def course() -> Interactions:
    """Clicks of learners on the pages of a course."""
    table = pyarrow.csv.read_csv(Path(__file__).parents[1] / "data" / "oulad_aaa_sample.views.csv.gz")
    builder = InteractionsBuilder(IdType.BIGINT, IdType.BIGINT, "sum", 0.0, "course")
    for batch in table.rename_columns(["user_id", "item_id", "value"]).to_batches():
        builder.add(batch)
    interactions, report = builder.build()
    assert (report.pairs, report.users, report.items) == (6055, 364, 119)
    return interactions


@pytest.fixture(scope="session")
def views() -> Interactions:
    """900 users of 9 clusters with 20 items each, 15 views of an own item to one of another."""
    random = np.random.default_rng(5)
    rows = set()
    for user in range(900):
        own = (user % 9) * 20 + np.minimum(random.geometric(0.12, 14) - 1, 19)
        rows |= {(user, int(item)) for item in np.concatenate([own, random.integers(0, 180, 2)])}
    user, item = np.array(sorted(rows), dtype=np.int32).T
    values = random.integers(1, 9, len(user)).astype(float)
    return Interactions(IdMap(pa.array(range(900))), IdMap(pa.array(range(180))), user, item, values)
