"""`recstore evaluate`: honest, next to baselines, the same through SQL; what it makes is removed."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, Database
from support import Hook, look, until
from support_sql import read_source

from recstore import pipeline
from recstore.definition import Definition, Gate, Hyperparameters, Publication, Source
from recstore.errors import RecstoreError
from recstore.evaluation import metrics, splits
from recstore.evaluation.fitted import fit
from recstore.evaluation.results import Evaluation
from recstore.experiments import scratch, through_sql
from recstore.model.interactions import Interactions
from recstore.runs import Silent
from recstore.types import IdType

pytestmark = pytest.mark.usefixtures("calibrated")

CREATE = (
    "create retail --table shop.views --item product_id --value view_count"
    " --factors 16 --iterations 8 --regularization 20 --alpha 60"
)
HELD_OUT = "(user_id * 7 + product_id * 13) % 10 = 0"
TEST = f"SELECT user_id, product_id AS item_id FROM shop.views WHERE {HELD_OUT}"


def results(answer: Any) -> dict[str, dict[str, float | None]]:
    """Return the metrics by model of an evaluation as JSON."""
    assert answer.code == 0, answer.err
    return {result.name.split(",")[0]: result.metrics for result in Evaluation.from_dict(answer.json).results}


def of_lists(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if "@" in name}


def traces(database: Database) -> list[Any]:
    """Return all that a command could have left: schemas, recommenders, runs, generations, sessions with locks."""
    return [
        look(database, "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1"),
        look(database, "SELECT recommender FROM recstore.status ORDER BY 1"),
        look(database, "SELECT run FROM recstore.runs ORDER BY 1"),
        look(database, "SELECT generation, state FROM recstore.generations ORDER BY 1"),
        look(
            database,
            "SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        ),
    ]


def read(database: Database, name: str = "retail") -> Interactions:
    return read_source(database, name)[0]


def test_an_evaluation_beats_popularity_and_leaves_nothing(recstore: Command, shop: Database) -> None:
    recstore(CREATE + " --popularity-exponent 0.1 --titles shop.products:product_id:title")
    before = traces(shop)
    answer = recstore("evaluate retail --sql --search exact --curve 4 --k 5,10 --users 90% --json")
    found = results(answer)
    assert list(found) == ["retail", "popularity", "item-kNN", "EASE", "retail through SQL"]
    for name in ("recall@10", "ndcg@5", "map@10", "auc"):
        assert found["retail"][name] > 1.2 * found["popularity"][name], name
    through_sql = found["retail through SQL"]
    assert {name for name, value in through_sql.items() if value is None} == {"auc", "mse"}
    assert of_lists(found["retail"]) == of_lists(through_sql)
    own, popularity, *_, sql = answer.json["results"]
    low, high = own["intervals"]["ndcg@10"]
    assert low < found["retail"]["ndcg@10"] < high
    low, high = popularity["differences"]["ndcg@10"]
    assert 0 < low < found["retail"]["ndcg@10"] - found["popularity"]["ndcg@10"] < high
    assert sql["differences"]["ndcg@10"] == [0, 0]  # the same lists for the same users
    assert own["differences"] == {}
    assert traces(shop) == before
    printed = answer.json
    assert printed["evaluated_users"] == 216
    assert printed["train_pairs"] + printed["test_pairs"] == len(read(shop))
    assert [point["iteration"] for point in printed["curve"]] == [4, 8]
    assert len(printed["examples"]) == 6
    for example in printed["examples"]:
        shown = example["heading"].removeprefix("Similar to "), *(row[0] for row in example["rows"])
        assert all(title.startswith("product ") for title in shown)


def test_the_evaluated_model_has_not_seen_the_test_pairs(recstore: Command, shop: Database) -> None:
    """Its metrics equal those of a recommender over a table without them, and are far below those of a model that saw them."""
    recstore(CREATE)
    line = "evaluate retail --factors 48 --regularization 10 --alpha 60 --search exact --json --test-query"
    own = results(recstore(line, TEST))["retail"]
    query = f"SELECT user_id, product_id AS item_id, view_count AS value FROM shop.views WHERE NOT {HELD_OUT}"
    never = shop.create(
        "never",
        source=Source(query=query),
        hyperparameters=Hyperparameters(factors=48, iterations=8, regularization=10, alpha=60),
        gate=Gate(held_out=0),
    )
    shop.retrain("never")
    whole, train = read(shop), read(shop, "never")
    kept = np.isin(
        whole.users.take(whole.user_index).to_numpy() * 1000 + whole.items.take(whole.item_index).to_numpy(),
        train.users.take(train.user_index).to_numpy() * 1000 + train.items.take(train.item_index).to_numpy(),
    )
    split = splits.given(whole.part(kept), whole.part(~kept))
    lists = through_sql.recommended(shop.url, never, split.train, split.users(), 20)
    matrices = split.train.matrix(), split.test.matrix()
    honest = metrics.evaluate_lists(lists, split.users(), *matrices, ks=(10, 20)).values
    assert of_lists(own) == of_lists(honest)
    definition = never.definition
    leaked = fit(whole, definition.confidence, definition.hyperparameters)
    seen = metrics.evaluate(leaked.scorer, *matrices, users=split.users()).values
    assert seen["recall@10"] > own["recall@10"] + 0.1


def test_lists_by_sql_are_numpy_s(shop: Database) -> None:
    shop.create()
    train = read(shop)
    definition = Definition(
        source=Source(table="none"),
        hyperparameters=Hyperparameters(factors=12, iterations=4, regularization=20, alpha=60),
        publication=Publication(search="exact"),
    )
    model = fit(train, definition.confidence, definition.hyperparameters)
    users, k = np.arange(len(train.users)), 15
    scores = model.scorer.scores(users)
    scores[train.user_index, train.item_index] = -np.inf
    right = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    store = scratch.Store(shop.url, IdType.BIGINT, IdType.INTEGER)
    with scratch.scratch(store, shop.settings, train, definition, Silent()) as made:
        pipeline.retrain(shop.url, shop.settings, made.name)
        lists = through_sql.recommended(shop.url, made, train, users, k)
    assert np.array_equal(lists, right)


def test_splits_and_overrides(recstore: Command) -> None:
    recstore(CREATE)
    by_share = recstore("evaluate retail --split share --share 10% --json").json
    assert by_share["test_pairs"] == round(0.1 * (by_share["train_pairs"] + by_share["test_pairs"]))
    assert "by share" in by_share["split"]
    assert by_share == recstore("evaluate retail --split share --share 0.1 --json").json | {
        "taken_at": by_share["taken_at"],
        "results": by_share["results"],
    }
    other = recstore("evaluate retail --split share --share 10% --split-seed 7 --json").json
    assert other["results"][1]["metrics"] != by_share["results"][1]["metrics"]
    tried = recstore("evaluate retail --items 3 --factors 8 --min-users-per-item 12 --confidence log --json").json
    assert "3 items of each" in tried["split"]
    assert tried["items"] < 120
    used = tried["results"][0]["hyperparameters"]
    assert (used["factors"], used["confidence"]["function"]) == (8, "log")
    shown = recstore("show retail").out
    assert "factors = 16" in shown
    assert "min_users_per_item" not in shown


def test_sampled_negatives_agree_through_sql(recstore: Command) -> None:
    recstore(CREATE)
    found = results(recstore("evaluate retail --negatives 30 --k 3,5 --sql --search exact --json"))
    own, through_sql = found["retail"], found["retail through SQL"]
    assert of_lists(own) == of_lists(through_sql)
    assert own["recall@5"] > results(recstore("evaluate retail --k 3,5 --json"))["retail"]["recall@5"]


def test_a_test_set_from_a_file(
    recstore: Command, shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recstore(CREATE)
    rows = look(shop, TEST)
    file = tmp_path / "test.csv"
    file.write_text("\n".join(f"{row['user_id']},{row['item_id']}" for row in rows))
    by_file = recstore("evaluate retail --json --test-file", str(file))
    by_query = recstore("evaluate retail --json --test-query", TEST)
    assert results(by_file) == results(by_query)
    assert by_file.json["test_pairs"] == len(rows)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert results(recstore("evaluate retail --json --test-file -")) == results(by_file)
    file.write_text("1,99999\n888,3\n1,1\n")
    warned = recstore("evaluate retail --json --test-file", str(file)).json["warnings"]
    assert any("1 of the test part's 2 users have no training pair" in sentence for sentence in warned)


def test_the_tables_and_the_report(recstore: Command, tmp_path: Path) -> None:
    recstore(CREATE)
    page = tmp_path / "report.html"
    answer = recstore(
        "evaluate retail --curve 4 --include-seen --report", str(page), "--pictures", str(tmp_path)
    ).expect(0)
    for shown in ("by user", "240", "at 10", "over all items"):
        assert shown in answer.out
    assert "popularity" in page.read_text()
    assert list(tmp_path.glob("*.png"))
    assert "held-out items" in recstore("evaluate --help").out


@pytest.mark.parametrize("error", [RecstoreError("It broke."), KeyboardInterrupt()])
def test_a_scratch_recommender_is_gone_after_an_error(
    recstore: Command, shop: Database, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    recstore(CREATE)
    before = traces(shop)
    seen = []

    def broken(*_: object, **__: object) -> None:
        seen.extend(look(shop, "SELECT live_generation FROM recstore.status WHERE recommender LIKE 'scratch%%'"))
        raise error

    monkeypatch.setattr(through_sql, "recommended", broken)
    answer = recstore("evaluate retail --sql --search exact")
    assert answer.code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert seen[0]["live_generation"]
    until(lambda: traces(shop)[4] == before[4])  # a session's locks end soon after the client has left
    assert traces(shop)[:2] == before[:2]


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from recstore import pipeline
from recstore.experiments import scratch
from recstore.runs import Silent
from recstore.config import Settings
from recstore.definition import Definition, Source
from recstore.files.split_files import from_rows
from recstore.types import IdType
rows = [(str(u), str(i)) for u in range(9) for i in range(9) if (u + i) % 3]
train = from_rows(rows, IdType.BIGINT, IdType.TEXT, "rows")
definition = Definition(source=Source(table="none"))
store = scratch.Store({url!r}, IdType.BIGINT, IdType.TEXT)
with scratch.scratch(store, Settings(), train, definition, Silent()) as made:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_one_removes_only_what_a_killed_one_left(recstore: Command, shop: Database) -> None:
    recstore(CREATE)
    before = traces(shop)
    program = KILLED.format(tests=str(Path(__file__).parent), url=shop.url)
    killed = subprocess.run([sys.executable, "-c", program], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    left = look(shop, "SELECT recommender FROM recstore.status WHERE recommender LIKE 'scratch%%'")
    assert len(left) == 1
    train = read(shop)
    store = scratch.Store(shop.url, IdType.BIGINT, IdType.INTEGER)
    made = train, Definition(source=Source(table="none"))
    reporter = Hook()
    warned = reporter.warnings
    with scratch.scratch(store, shop.settings, *made, reporter) as first:
        assert [left[0]["recommender"] in sentence for sentence in warned] == [True]
        with scratch.scratch(store, shop.settings, *made, reporter) as second:
            assert len({first.name, second.name, left[0]["recommender"]}) == 3
            shown = look(shop, "SELECT recommender FROM recstore.status ORDER BY 1")
            assert {row["recommender"] for row in shown} == {first.name, second.name, "retail"}
    assert len(warned) == 1
    assert [traces(shop)[n] for n in (0, 1, 3, 4)] == [before[n] for n in (0, 1, 3, 4)]
