"""Every block of docs/moving.md runs: a pickled model of `implicit`, Gorse's tables, Personalizer's rewards."""

import pickle
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import Database
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse
from support_sql import column
from threadpoolctl import threadpool_limits

from recstore import cli

PAGE = (Path(__file__).parents[2] / "docs/moving.md").read_text()
SECTIONS = {
    text.partition("\n")[0].replace("`", "").split()[-1]: re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    for text in PAGE.split("\n## ")[1:]
}

GORSE = """
CREATE TABLE items (item_id varchar(256) COLLATE "C" PRIMARY KEY, is_hidden bool NOT NULL DEFAULT false,
    categories json NOT NULL DEFAULT '[]', time_stamp timestamptz NOT NULL, labels json NOT NULL DEFAULT '[]',
    comment text NOT NULL DEFAULT '');
CREATE TABLE feedback (feedback_type varchar(256) COLLATE "C", user_id varchar(256) COLLATE "C",
    item_id varchar(256) COLLATE "C", value float8 NOT NULL DEFAULT 0, time_stamp timestamptz NOT NULL,
    updated timestamptz NOT NULL DEFAULT '2000-01-01', labels json, comment text NOT NULL DEFAULT '',
    PRIMARY KEY (feedback_type, user_id, item_id));
INSERT INTO items SELECT 'item:' || product_id, product_id % 5 = 0, '[]', now() FROM shop.products;
INSERT INTO feedback SELECT CASE WHEN view_count > 6 THEN 'star' ELSE 'like' END, 'user:' || user_id,
    'item:' || product_id, 1, now() FROM shop.views;
INSERT INTO feedback SELECT 'read', 'user:42', 'item:' || product_id, 1, now() FROM shop.products WHERE product_id % 3 = 0;
GRANT SELECT ON items, feedback TO worker
"""
"""What Gorse's AutoMigrate makes in PostgreSQL, filled from the shop."""


def run(database: Database, section: str, capsys: pytest.CaptureFixture[str]) -> None:
    for language, text in SECTIONS[section]:
        for line in text.replace("\\\n", "").splitlines() if language == "sh" else []:
            small = " --factors 16 --search exact" if " create " in line and "--factors" not in line else ""
            assert cli.run(["--database", database.url, *shlex.split(line + small)[1:]]) == 0, capsys.readouterr()
        if language == "python":
            exec(compile(text, "docs/moving.md", "exec"), {})


def test_a_pickled_model_answers_as_it_did(
    shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with shop.connect() as connection:
        views = [tuple(row.values()) for row in connection.execute("SELECT * FROM shop.views").fetchall()]
    users, items, counts = (np.array(values) for values in zip(*views, strict=True))
    (user_ids, rows), (item_ids, columns) = (np.unique(ids, return_inverse=True) for ids in (users, items))
    matrix = sparse.csr_matrix((counts.astype(np.float32), (rows, columns)))
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=16, alpha=40, regularization=0.1, random_state=1)
        model.fit(matrix, show_progress=False)
    Path("model.pickle").write_bytes(pickle.dumps((model, user_ids, item_ids, matrix)))

    run(shop, "model", capsys)
    with shop.connect() as connection:
        for user in (1, 42, 200):
            row = int(np.searchsorted(user_ids, user))
            expected, _ = model.recommend(row, matrix[row], N=10)
            found = column(connection, "SELECT item_id FROM imported.recommend(%s, 10)", user)
            assert found == item_ids[expected].tolist()
        assert len(column(connection, "SELECT item_id FROM retail.recommend(42, 10)")) == 10
    shop.connect("application").execute("INSERT INTO shop.views VALUES (990001, 3, 1), (990001, 5, 2)")
    with shop.connect() as connection:
        assert set(column(connection, "SELECT reason FROM imported.recommend(990001, 5)")) == {"fold_in"}
    assert cli.run(["--database", shop.url, "retrain", "imported"]) == 0, capsys.readouterr()


def test_gorse_s_tables_are_a_source(shop: Database, capsys: pytest.CaptureFixture[str]) -> None:
    shop.connect("postgres").execute("GRANT CREATE ON SCHEMA public TO application")
    shop.connect("application").execute(GORSE)
    run(shop, "Gorse", capsys)
    with shop.connect() as connection:
        listed = column(connection, "SELECT item_id FROM gorse.recommend('user:42', 10)")
        numbers = [int(item.removeprefix("item:")) for item in listed]
        assert len(numbers) == 10
        assert all(number % 5 and number % 3 for number in numbers)  # neither hidden nor read
        for call in re.findall(r"`(gorse\.[^`]+)`", PAGE):
            call = call.replace("bob", "user:42").replace("vuejs:vue", "item:6")
            assert connection.execute(f"SELECT * FROM {call}").fetchall(), call  # type: ignore[arg-type]


def test_rewards_are_a_source(shop: Database, capsys: pytest.CaptureFixture[str]) -> None:
    shop.connect("application").execute(
        "CREATE TABLE shop.rewards AS SELECT user_id, product_id AS action_id, least(view_count / 10.0, 1) AS reward"
        " FROM shop.views; GRANT SELECT ON shop.rewards TO worker"
    )
    run(shop, "Personalizer", capsys)
    (query,) = [text for language, text in SECTIONS["Personalizer"] if language == "sql"]
    with shop.connect() as connection:
        assert sorted(column(connection, query.rstrip(";\n"))) == [3, 17, 61]
