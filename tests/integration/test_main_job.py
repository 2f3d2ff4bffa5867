"""The main job on a small shop: create, train, publish, ask."""

import pytest
from conftest import Database


@pytest.mark.contract
def test_a_first_training_goes_live_and_answers(shop: Database) -> None:
    shop.create()
    outcome = shop.retrain()
    connection = shop.connect()
    assert outcome.live
    assert connection.execute("SELECT retail.generation() AS g").fetchone() == {"g": outcome.generation}
    rows = connection.execute("SELECT * FROM retail.recommend(1, 5)").fetchall()
    assert len(rows) == 5
    assert {row["reason"] for row in rows} == {"trained"}
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
