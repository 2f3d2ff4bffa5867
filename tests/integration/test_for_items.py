"""Baskets, examples and given lists: recommend_for_items and rank_items."""

from collections.abc import Iterator
from typing import Any

import implicit
import numpy as np
import pytest
from conftest import Database, database_from
from numpy.typing import NDArray
from psycopg import errors as pg
from scipy import sparse
from support_sql import Factors, assert_ranking, column, read_factors, rows, transaction, value

from recstore.definition import Confidence, Filters, Hyperparameters, Publication, Source
from recstore.embedded import Server
from recstore.operations import readers
from recstore.postgres.connection import Connection

ALPHA, CAP = 40, 5
SMALL = {"factors": 16, "iterations": 3, "regularization": 3}


@pytest.fixture(scope="module")
def shop(server: Server, shop_template: str) -> Iterator[Database]:
    with database_from(server, shop_template) as database, database.connect() as connection:
        recommender = database.create(
            hyperparameters=Hyperparameters(alpha=ALPHA, **SMALL),
            confidence=Confidence(function="linear", scale="none"),
            filters=Filters(max_value=CAP),
            publication=Publication(search="exact"),
        )
        assert database.retrain().live
        readers.grant_reader(connection, recommender, "application")
        yield database


@pytest.fixture(scope="module")
def of(shop: Database) -> Factors:
    with shop.connect() as connection:
        return read_factors(connection)


@pytest.fixture
def anonymous(shop: Database) -> Iterator[Connection]:
    """A role that may not see people."""
    with shop.connect("application") as connection, transaction(connection):
        yield connection


def solved(of: Factors, weights: dict[int, float]) -> NDArray[np.float64]:
    """The factors by `implicit`, for which a negative confidence is a dislike."""
    model = implicit.cpu.als.AlternatingLeastSquares(factors=16, regularization=3, use_cg=False)
    model.item_factors = of.y[:, :16].astype(np.float32)
    confidences = np.zeros((1, len(of.items)))
    for item, weight in weights.items():
        confidences[0, of.item(item)] = np.sign(weight) * (1 + ALPHA * min(abs(weight), CAP))
    return model.recalculate_user(0, sparse.csr_matrix(confidences)).astype(np.float64)


def for_items(connection: Connection, items: list[Any], weights: list[Any] | None = None, more: str = "") -> Any:
    return rows(connection, f"SELECT * FROM retail.recommend_for_items(%s, %s{more})", items, weights)


@pytest.mark.contract
@pytest.mark.parametrize("seed", range(8))
def test_a_basket_has_the_list_of_implicit(anonymous: Connection, of: Factors, seed: int) -> None:
    random = np.random.default_rng(seed)
    items = random.choice(of.items, random.integers(1, 20), replace=False).tolist()
    weights = (random.choice([1, 2, 7.5], len(items)) * random.choice([1, 1, -1], len(items))).tolist()
    weights[0] = abs(weights[0])
    without = random.choice(of.items, 30).tolist()
    scores = of.y[:, :16] @ solved(of, dict(zip(items, weights, strict=True)))
    k = int(random.choice([1, 10, 200]))
    answer = rows(anonymous, "SELECT * FROM retail.recommend_for_items(%s, %s, %s, %s)", items, weights, k, without)
    assert {row["reason"] for row in answer} == {"fold_in"}
    assert_ranking(answer, of.items, scores, k, excluded=[*items, *without], tolerance=1e-4)

    # in another order, with the weight of one item in parts, and with what counts for nothing
    order = random.permutation(len(items))
    shuffled, parts = [items[n] for n in order], [weights[n] for n in order]
    more, zeros = [shuffled[0], None, 10**12, shuffled[-1]], [parts[0] - 0.25, 3.0, 5.0, None]
    again = rows(
        anonymous,
        "SELECT * FROM retail.recommend_for_items(%s, %s, %s, %s)",
        [*shuffled, *more],
        [0.25, *parts[1:], *zeros],
        k,
        [*without, None, -(10**12)],
    )
    assert [row["item_id"] for row in again] == [row["item_id"] for row in answer]
    np.testing.assert_allclose([row["score"] for row in again], [row["score"] for row in answer], rtol=1e-4)


def test_without_weights_each_is_one(anonymous: Connection, of: Factors) -> None:
    assert for_items(anonymous, [3, 5]) == for_items(anonymous, [3, 5], [1, 1])
    assert for_items(anonymous, [3, 5, 3]) == for_items(anonymous, [3, 5], [2, 1])
    assert_ranking(for_items(anonymous, [3]), of.items, of.y[:, :16] @ solved(of, {3: 1}), 10, excluded=[3])


NOTHING_LIKED: dict[str, tuple[list[Any] | None, list[Any] | None]] = {
    "unknown items": ([900, 10**12, -(10**12)], None),
    "no items": ([], None),
    "NULL": (None, None),
    "NULL weights": ([3], [None]),
    "no weights": ([], []),
    "dislikes": ([3, 5], [-1, -2]),
    "zero": ([3], [0]),
    "likes that cancel out": ([3, 3, 3], [0.1, 0.2, -0.3]),
    "liked unknown items": ([3, 900], [-1, 1]),
}


@pytest.mark.parametrize(("items", "weights"), NOTHING_LIKED.values(), ids=NOTHING_LIKED)
def test_where_no_liked_item_is_known_come_popular_ones(
    anonymous: Connection, items: list[Any] | None, weights: list[Any] | None
) -> None:
    popular = rows(anonymous, "SELECT * FROM retail.popular_items(10, exclude_items => %s::bigint[])", items)
    answer = rows(anonymous, "SELECT * FROM retail.recommend_for_items(%s::bigint[], %s::float8[])", items, weights)
    users = value(anonymous, "SELECT users FROM retail._generation")
    assert answer == [
        {"item_id": row["item_id"], "score": row["users"] / users, "reason": "popular"} for row in popular
    ]
    assert len(answer) == 10


@pytest.mark.parametrize("trainer", ["spectral", "hybrid"])
def test_other_trainers_subtract_what_is_disliked(shop: Database, trainer: str) -> None:
    shop.create(trainer, hyperparameters=Hyperparameters(trainer=trainer, alpha=30, **SMALL))
    assert shop.retrain(trainer).live
    with shop.connect() as connection:
        assert len(for_items(connection, [3, 5], [1, -1])) == 10
        call = f"SELECT item_id, score, reason FROM {trainer}.recommend_for_items(ARRAY[3, 5], ARRAY[%s, %s], 200)"
        score = {sign: {row["item_id"]: row["score"] for row in rows(connection, call, 1, sign)} for sign in (1, -1)}
        near = column(connection, f"SELECT item_id FROM {trainer}.similar_items(5, 10, 1, ARRAY[3])")
        assert sum(score[1][item] > score[-1][item] for item in near) >= 9
        assert set(column(connection, call.replace("item_id, score, reason", "reason"), -1, -1)) == {"popular"}


WRONG: dict[str, tuple[str, str]] = {
    "fewer weights": ("ARRAY[3, 5], ARRAY[1]", "weights has 1 elements, but item_ids has 2"),
    "more weights": ("ARRAY[3], ARRAY[1, 2]", "weights has 2 elements, but item_ids has 1"),
    "weights of nothing": ("NULL, ARRAY[1]", "weights has 1 elements, but item_ids has 0"),
    "NaN": ("ARRAY[3, 5], ARRAY[1, 'NaN']::float8[]", "weights contains NaN or Infinity"),
    "infinity": ("ARRAY[3, 5], ARRAY['-Infinity', 1]::float8[]", "weights contains NaN or Infinity"),
    "no k": ("ARRAY[3], NULL, 0", "k is the number of rows wanted"),
}


@pytest.mark.contract
@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_refused_with_a_sentence(anonymous: Connection, arguments: str, message: str) -> None:
    with pytest.raises(pg.InvalidParameterValue, match=message):
        anonymous.execute(f"SELECT * FROM retail.recommend_for_items({arguments})")


def test_huge_weights_are_no_error(anonymous: Connection) -> None:
    assert len(for_items(anonymous, [3, 3, 5], [1e308, 1e308, -1e308])) == 10
    assert len(for_items(anonymous, [3, 5], [5e-324, -5e-324])) == 10


@pytest.fixture
def person(shop: Database) -> Iterator[Connection]:
    """A role that may see people."""
    with shop.connect() as connection, transaction(connection):
        yield connection


def ranked(connection: Connection, user: int | None, items: Any) -> list[tuple[Any, ...]]:
    found = rows(connection, "SELECT * FROM retail.rank_items(%s::bigint, %s::bigint[])", user, items)
    return [tuple(row.values()) for row in found]


@pytest.mark.contract
@pytest.mark.parametrize("seed", range(6))
def test_given_items_come_in_the_user_s_order(person: Connection, of: Factors, seed: int) -> None:
    random = np.random.default_rng(seed)
    generation = value(person, "SELECT retail.generation()")
    collapsed = int(random.choice(of.items))
    person.execute(f"UPDATE retail._items_{generation} SET preference = NULL WHERE item_id = %s", [collapsed])
    known = random.choice(of.items, 40).tolist()
    unknown = [901, 10**12, collapsed, -5]
    given: list[Any] = [*random.permutation([*known, *unknown, *known[:5]]).tolist(), None]
    user = int(random.choice(of.users))
    scores = of.scores[of.user(user)]
    answer = ranked(person, user, given)
    in_order = [item for item in dict.fromkeys(given) if item in unknown]
    liked = [{"item_id": item, "score": score} for item, score, _ in answer[: -len(in_order)]]
    others = [item for item in of.items if item not in known or item == collapsed]
    assert_ranking(liked, of.items, scores, 1000, excluded=others)
    assert answer[-len(in_order) :] == [(item, None, None) for item in in_order]
    assert {reason for _, _, reason in answer[: len(liked)]} == {"trained"}

    # a user of whom nothing is known
    popular = rows(
        person,
        "SELECT p.item_id, p.users / g.users::float8 AS share FROM retail.popular_items(1000) p, retail._generation g",
    )
    by_popularity = [(row["item_id"], row["share"], "popular") for row in popular if row["item_id"] in given]
    in_order.remove(collapsed)
    for nobody in (99999, None):
        assert ranked(person, nobody, given) == by_popularity + [(item, None, None) for item in in_order]


def test_a_user_who_came_after_the_training_has_an_order_of_their_own(shop: Database) -> None:
    with shop.connect("postgres") as connection, transaction(connection):
        connection.execute("INSERT INTO shop.views VALUES (7001, 3, 2), (7001, 5, 1)")
        best = rows(connection, "SELECT item_id, score, reason FROM retail.recommend(7001, 50)")
        assert ranked(connection, 7001, sorted(row["item_id"] for row in best)) == [tuple(row.values()) for row in best]
        assert {row["reason"] for row in best} == {"fold_in"}


def test_no_items_are_no_rows(person: Connection) -> None:
    for nothing in ([], None, [None]):
        assert ranked(person, 1, nothing) == []


@pytest.mark.contract
def test_before_the_first_generation(shop: Database) -> None:
    shop.create("empty")
    with shop.connect() as connection:
        assert rows(connection, "SELECT * FROM empty.recommend_for_items(ARRAY[1, 2])") == []
        assert column(connection, "SELECT item_id FROM empty.rank_items(1, ARRAY[7, 3, 7, NULL, 5])") == [7, 3, 5]


def test_rights_are_those_of_what_is_read(anonymous: Connection) -> None:
    with pytest.raises(pg.InsufficientPrivilege, match="_users"):
        anonymous.execute("SELECT * FROM retail.rank_items(1, ARRAY[3])")


def test_similar_and_popular_items_leave_out_what_is_given(person: Connection) -> None:
    for call in ("recommend(1, 10, false", "recommend(99999, 10, true", "similar_items(3, 10, 1", "popular_items(10"):
        whole = column(person, f"SELECT item_id FROM retail.{call.replace('10', '200')})")
        for without in (whole[::2], [], [None], [10**12, whole[0]], None):
            answer = column(person, f"SELECT item_id FROM retail.{call}, exclude_items => %s::bigint[])", without)
            assert answer == [item for item in whole if item not in (without or [])][:10], call


SOURCE = Source(query="SELECT md5(user_id::text)::uuid AS user_id, md5(product_id::text)::uuid AS item_id,"
                      " view_count AS value FROM shop.views")  # fmt: skip


@pytest.mark.contract
def test_arrays_as_applications_have_them(shop: Database) -> None:
    """Arrays of uuid or text, and literals, for uuids; of any integer type for integers."""
    shop.create("hashed", source=SOURCE, hyperparameters=Hyperparameters(**SMALL))
    assert shop.retrain("hashed").live
    with shop.connect() as connection:
        items = column(connection, "SELECT item_id FROM hashed.popular_items(3)")
        texts = [str(item) for item in items]
        user = value(connection, "SELECT user_id FROM hashed.user_vectors LIMIT 1")
        forms = (
            ("%s::uuid[]", items),
            ("%s::text[]", texts),
            ("%s::varchar[]", texts),
            ("'{" + ",".join(texts) + "}'", None),
        )
        for call in ("recommend_for_items({})", "rank_items('{user}', {})", "recommend('{user}', exclude_items => {})"):
            answers = [
                rows(connection, f"SELECT * FROM hashed.{call.format(form, user=user)}", *[given] * (given is not None))
                for form, given in forms
            ]
            assert len(answers[0]) in (3, 10)
            assert all(answer == answers[0] for answer in answers), call
        uuid_calls = ("rank_items(%s, %s)", "recommend(%s, exclude_items => %s)")
        assert all(len(rows(connection, f"SELECT * FROM hashed.{call}", user, items)) in (3, 10) for call in uuid_calls)
        assert column(connection, "SELECT item_id FROM hashed.popular_items(3, exclude_items => %s)", items) != items
        assert len(rows(connection, "SELECT * FROM hashed.recommend_for_items(NULL)")) == 10
        answer = for_items(connection, [3, 5])
        for kind in ("smallint", "integer", "bigint"):
            assert rows(connection, f"SELECT * FROM retail.recommend_for_items(ARRAY[3, 5]::{kind}[])") == answer
        assert rows(connection, "SELECT * FROM retail.recommend_for_items('{3,5}')") == answer
        assert rows(connection, "SELECT * FROM retail.recommend_for_items('{3,5}', ARRAY[1, 1.0])") == answer


@pytest.mark.contract
def test_scores_that_people_can_read(person: Connection, of: Factors) -> None:
    """Relative to all items, seen ones included; the items and their order stay the same."""
    user = of.users[3]
    scores = of.scores[3]
    unit = (scores - scores.min()) / (scores.max() - scores.min())
    rank = {item: 1 + int((scores > scores[n] + 1e-6).sum()) for n, item in enumerate(of.items)}
    plain, relative, places = (
        rows(person, f"SELECT * FROM retail.recommend(%s, 6, scale => {scale})", user)
        for scale in ("NULL", "'unit'", "'rank'")
    )
    items = [row["item_id"] for row in plain]
    assert [row["item_id"] for row in relative] == [row["item_id"] for row in places] == items
    assert [row["score"] for row in relative] == pytest.approx([unit[of.item(item)] for item in items], abs=1e-5)
    assert [row["score"] for row in places] == [rank[item] for item in items]
    found = value(person, "SELECT retail.predict(%s, %s, scale => 'unit')", user, items[0])
    assert found == pytest.approx(relative[0]["score"])
    basket = rows(person, "SELECT * FROM retail.recommend_for_items(%s, k => 3, scale => 'rank')", items[:3])
    assert [row["score"] for row in basket] == sorted(row["score"] for row in basket)
    page = rows(person, "SELECT * FROM retail.rank_items(%s, %s, scale => 'unit')", user, [items[2], 999999, items[0]])
    assert [row["item_id"] for row in page] == [items[0], items[2], 999999]
    assert [row["score"] for row in page[:2]] == pytest.approx([relative[0]["score"], relative[2]["score"]])
    assert page[2]["score"] is None
    with pytest.raises(pg.InvalidParameterValue, match="there is no scale 'percent'"):
        rows(person, "SELECT * FROM retail.recommend(%s, 6, scale => 'percent')", user)
