"""A catalogue of 100 thousand items with the demo's spread of lengths is calibrated to ANN recall@10 of 0.99.

Expanded from the demo's trained factors with a seed: every item 25 times, its direction jittered, its length another
real item's; the users are the real ones. No figure here is about a real catalogue of that size.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from conftest import Database

from recstore import pipeline
from recstore.definition import Confidence, Definition, Hyperparameters, Publication, Source
from recstore.demo import load_shop
from recstore.model import confidence, vectors
from recstore.model.interactions import IdMap
from recstore.model.trainers.als import ALS
from recstore.operations import jobs
from recstore.publication import building
from recstore.runs import Run
from recstore.source import pulling

COPIES = 25


@pytest.mark.campaign
@pytest.mark.usefixtures("calibrated")
@pytest.mark.parametrize("factors", [64, 128])
def test_a_large_catalogue_is_calibrated(factors: int, shop: Database) -> None:
    connection = shop.connect("application")
    connection.execute("DROP SCHEMA shop CASCADE")
    load_shop(connection)
    connection.execute("GRANT USAGE ON SCHEMA shop TO worker; GRANT SELECT ON ALL TABLES IN SCHEMA shop TO worker")
    source = Source(table="shop.views", item="product_id", value="view_count")
    definition = Definition(source=source, hyperparameters=Hyperparameters(factors=factors), publication=Publication())
    recommender = shop.create(
        **{name: getattr(definition, name) for name in ("source", "hyperparameters", "publication")}
    )
    with Run(shop.url, shop.settings, "retail", "retrain") as run:
        run.stage("prepare", jobs.prepare, run)
        pulled, _, _ = pulling.read(
            run.connection, shop.url, shop.settings, recommender, source, application_name="test"
        )
        matrix = confidence.fit(pulled, Confidence()).matrix(pulled, confidence.alpha_for(pulled, None))
        trained = ALS().train(matrix, definition.hyperparameters, factors=factors)
        users = ALS().solve_users(matrix, trained.fold_in)
        large = expand(trained.item_factors)
        assert len(large) > 100_000
        items = vectors.item_vectors(large, recommender.dimensions)
        interactions = replace(pulled, items=IdMap(pa.array(np.arange(1, len(large) + 1, dtype=np.int32))))
        content = building.Content(
            population=building.Population.of(interactions),
            pulled=interactions,
            items=items,
            users=vectors.user_vectors(users, recommender.dimensions),
            factors=factors,
            snapshot={},
            filters=[],
            confidence={},
            training={},
        )
        generation = run.generation.number
        assert pipeline.publish(run, content, release=False).live
    row = (
        shop.connect()
        .execute(
            "SELECT g.recommend_ef, g.similar_ef, g.calibration FROM recstore.generations g WHERE g.generation = %s",
            [generation],
        )
        .fetchone()
    )
    assert row
    print(row["calibration"])
    for kind in ("recommend", "similar"):
        chosen = row["calibration"][kind]["chosen"]
        assert chosen["ann_recall"] >= 0.99
        if chosen["ef"] is not None:
            exact = row["calibration"][kind]["trials"][0]
            assert chosen["milliseconds"] < exact["milliseconds"]


def expand(item_factors: np.ndarray, seed: int = 11) -> np.ndarray:
    """COPIES jittered versions of every item, lengths shuffled among real ones; float32."""
    random = np.random.default_rng(seed)
    copies = np.repeat(item_factors, COPIES, axis=0).astype(np.float64)
    lengths = np.linalg.norm(copies, axis=1, keepdims=True)
    jitter = random.normal(size=copies.shape) * lengths / np.sqrt(copies.shape[1]) * 0.5
    directions = copies + jitter
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return (directions * random.permutation(lengths)).astype(np.float32)
