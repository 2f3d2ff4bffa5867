"""The steps of recommend() for a user of whom the training knows nothing, and popular items of a window or with a half-life."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from conftest import Command, Database, administration, database_from
from support_sql import column, rows, transaction, value

from recstore import lists, registry
from recstore.definition import Candidates, Confidence, Definition, Exclusions, Fallback, Hyperparameters, Source
from recstore.embedded import Server
from recstore.errors import FallbackInvalid, ReadersLackRights, SourceInvalid
from recstore.files.archive import exporting
from recstore.files.archive.importing import import_generation
from recstore.operations import readers
from recstore.postgres.connection import Connection
from recstore.refresh import refresh
from recstore.sql import objects

CLICKS = Source(
    query="SELECT user_id, product_id AS item_id, n AS value, at AS last_at FROM shop.clicks", max_nulls=0.5
)
SMALL = Hyperparameters(factors=8, iterations=2, alpha=20, regularization=1)
CHOSEN = "SELECT for_user AS user_id, product_id AS item_id, weight AS score FROM shop.chosen"
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def shop(server: Server, shop_template: str) -> Iterator[Database]:
    """shop.clicks: several rows of many pairs over 60 days, with every kind of row and time that counts differently or not at
    all; shop.chosen: items for all users, and for user 7001. Recommenders over them, which the application may read."""
    with database_from(server, shop_template) as database, database.connect("application") as application:
        application.execute(
            """
            CREATE TABLE shop.clicks AS
            SELECT v.user_id, v.product_id, ((hashint8(v.user_id * 977 + v.product_id * 31 + c) % 7))::float8 AS n,
                now() - make_interval(secs => abs(hashint8(v.user_id * 131 + v.product_id * 7 + c)) % (60 * 86400)) AS at
            FROM shop.views v CROSS JOIN LATERAL generate_series(1, 1 + v.view_count % 3) c;
            UPDATE shop.clicks SET at = NULL WHERE product_id % 17 = 3 AND user_id % 3 = 0;
            UPDATE shop.clicks SET at = '-infinity' WHERE product_id % 19 = 4 AND user_id % 5 = 0;
            UPDATE shop.clicks SET at = 'infinity' WHERE product_id % 23 = 5 AND user_id % 9 = 0;
            UPDATE shop.clicks SET n = 'NaN' WHERE user_id % 31 = 5 AND product_id % 11 = 0;
            CREATE INDEX ON shop.clicks (user_id);
            CREATE INDEX ON shop.clicks (at);
            CREATE TABLE shop.chosen (for_user bigint, product_id integer NOT NULL, weight numeric);
            INSERT INTO shop.chosen VALUES (NULL, 5, 2), (NULL, 6, 1), (NULL, 7, 0.5), (NULL, 10, NULL),
                (7001, 8, 3), (7001, 5, 9), (7002, 9, 1),
                (NULL, 11, 'NaN'), (NULL, 12, 1e400), (NULL, 13, '-Infinity'), (7990, 14, 1e-400);
            GRANT SELECT ON shop.clicks, shop.chosen TO worker
            """
        )
        with database.connect() as connection:
            for name, source in {"retail": CLICKS, "net": CLICKS.model_copy(update={"negative": "net"})}.items():
                recommender = database.create(name, source=source, hyperparameters=SMALL)
                assert database.retrain(name).live
                readers.grant_reader(connection, recommender, "application", people=True)
        yield database
    administration(server).execute("DROP ROLE IF EXISTS clerk_of_shop")


@pytest.fixture
def application(shop: Database) -> Iterator[Connection]:
    """Rows that a test adds, by users above 7000, are gone after it."""
    with shop.connect("application") as connection:
        yield connection
        connection.execute("DELETE FROM shop.clicks WHERE user_id > 7000")


@pytest.fixture
def falling_back(shop: Database) -> Iterator[Callable[..., None]]:
    """Gives `retail` another fallback, and other sections, until the test ends."""
    with shop.connect() as connection:
        before = registry.get(connection, "retail").definition

    def alter(candidates: Candidates | None = None, **fallback: Any) -> None:
        shop.alter(fallback=Fallback(**fallback), candidates=candidates or Candidates())

    yield alter
    shop.alter(
        fallback=before.fallback, candidates=before.candidates, source=before.source, exclusions=before.exclusions
    )


Counted = dict[int, dict[int, tuple[float, datetime, datetime]]]


def pairs_since(connection: Connection, since: datetime | None, *, net: bool = False) -> tuple[Counted, datetime]:
    """Item -> user -> (value, newest time, oldest time) of the rows that count, and now; by Python alone."""
    now: datetime = value(connection, "SELECT now()")
    found = rows(
        connection,
        "SELECT user_id, product_id, n, CASE WHEN at = 'infinity' THEN now() ELSE at END AS at FROM shop.clicks"
        " WHERE at > '-infinity' AND n <> 'NaN'",
    )
    pairs: dict[tuple[int, int], list[tuple[float, datetime]]] = {}
    for row in found:
        if (net or row["n"] > 0) and (since is None or row["at"] > since):
            pairs.setdefault((row["product_id"], row["user_id"]), []).append((row["n"], row["at"]))
    counted: Counted = {}
    for (item, user), some in pairs.items():
        total, times = sum(n for n, _ in some), [at for _, at in some]
        if total > 0:
            counted.setdefault(item, {})[user] = total, max(times), min(times)
    return counted, now


@pytest.mark.contract
@pytest.mark.parametrize("name", ["retail", "net"])
@pytest.mark.parametrize(
    ("window", "half_life"),
    [(7 * DAY, None), (DAY / 4, None), (None, 10 * DAY), (None, DAY / 4), (30 * DAY, 3 * DAY), (4000 * DAY, None)],
)
def test_popular_items_of_a_window_and_with_a_half_life(
    application: Connection, name: str, window: timedelta | None, half_life: timedelta | None
) -> None:
    with transaction(application):
        check_popular_items(application, name, window, half_life)


def check_popular_items(
    application: Connection, name: str, window: timedelta | None, half_life: timedelta | None
) -> None:
    now = value(application, "SELECT now()")
    counted, now = pairs_since(application, window and now - window, net=name == "net")
    expected = []
    for item, users in counted.items():
        views = sum(total for total, _, _ in users.values())
        if half_life:
            views = sum(2 ** -((now - newest) / half_life) for _, newest, _ in users.values())
        expected.append((item, len(users), views))
    assert len(expected) > 5
    order = (lambda row: (-row[2], -row[1], row[0])) if half_life else (lambda row: (-row[1], -row[2], row[0]))
    expected.sort(key=order)
    for k in (3, 1000):
        answer = rows(application, f"SELECT * FROM {name}.popular_items(%s, %s, %s)", k, window, half_life)
        assert [row["item_id"] for row in answer] == [item for item, _, _ in expected[:k]]
        assert [row["users"] for row in answer] == [users for _, users, _ in expected[:k]]
        np.testing.assert_allclose([row["views"] for row in answer], [views for _, _, views in expected[:k]], rtol=1e-9)


def trending(connection: Connection, window: timedelta) -> list[tuple[int, float]]:
    now = value(connection, "SELECT now()")
    counted, now = pairs_since(connection, now - 2 * window)
    begun = now - window
    recent = {item: sum(newest > begun for _, newest, _ in users.values()) for item, users in counted.items()}
    before = {item: sum(oldest <= begun for _, _, oldest in users.values()) for item, users in counted.items()}
    p = (sum(recent.values()) + 1) / (sum(recent.values()) + sum(before.values()) + 2)
    scores = {}
    for item in counted:
        n = recent[item] + before[item]
        scores[item] = (recent[item] - n * p) / (n * p * (1 - p)) ** 0.5
    return sorted(((item, score) for item, score in scores.items() if score > 0), key=lambda each: (-each[1], each[0]))


@pytest.mark.contract
def test_trending_is_above_what_the_window_before_lets_expect(
    application: Connection, falling_back: Callable[..., None]
) -> None:
    falling_back(steps=("trending",))
    with transaction(application):
        expected = trending(application, 7 * DAY)
        answer = rows(application, "SELECT * FROM retail.recommend(NULL, 1000)")
    assert len(expected) > 20
    assert {row["reason"] for row in answer} == {"trending"}
    np.testing.assert_allclose([row["score"] for row in answer], [score for _, score in expected], rtol=1e-9)
    assert {row["item_id"] for row in answer[:10]} == {item for item, _ in expected[:10]}
    application.execute(  # everything once more, now: the whole site has a rush, and no item trends
        "INSERT INTO shop.clicks SELECT 10000000 + user_id, product_id, n, now() - '7 days'::interval * c FROM shop.clicks,"
        " generate_series(0, 1) c"
    )
    rush = rows(application, "SELECT * FROM retail.recommend(NULL, 1000)")
    assert max(row["score"] for row in rush) < max(row["score"] for row in answer)
    application.execute(
        "INSERT INTO shop.clicks SELECT 20000000 + n, 119, 1, now() - '1 hour'::interval FROM generate_series(1, 99) n"
    )
    assert column(application, "SELECT item_id FROM retail.recommend(NULL, 1)") == [119]


def view(connection: Connection, user: int, *items: int) -> None:
    connection.execute("INSERT INTO shop.clicks SELECT %s, unnest(%s::int[]), 1, now()", [user, [*items]])


@pytest.mark.contract
def test_steps_follow_each_other_and_fill_the_list_up(
    application: Connection, falling_back: Callable[..., None]
) -> None:
    popular = column(application, "SELECT item_id FROM retail.popular_items(1000)")
    view(application, 7001, 30, 31)
    view(application, 7002, 6)
    folded_in = column(application, "SELECT item_id FROM retail.recommend(7001, 20)")
    queried = {7001: [5, 8, 6, 7], 7002: [5, 9, 7], 7003: [5, 6, 7]}
    cases = {
        ("popular",): {7003: [("popular", popular[:6])]},
        ("query", "popular"): {
            user: [
                ("query", items),
                ("popular", [one for one in popular if one not in (*items, 30, 31, *[6] * (user == 7002))]),
            ]
            for user, items in queried.items()
        },
        ("query", "fold_in", "popular"): {
            7001: [("query", queried[7001]), ("fold_in", [one for one in folded_in if one not in queried[7001]])],
            7003: [("query", queried[7003]), ("popular", [one for one in popular if one not in queried[7003]])],
        },
        ("fold_in", "query"): {7001: [("fold_in", folded_in)], 7003: [("query", queried[7003])]},
    }
    for steps, users in cases.items():
        falling_back(steps=steps, query=CHOSEN if "query" in steps else None)
        for user, parts in users.items():
            expected = [(item, reason) for reason, items in parts for item in items]
            for k in (1, 3, 6):
                answer = rows(application, "SELECT * FROM retail.recommend(%s, %s)", user, k)
                listed = [(row["item_id"], row["reason"]) for row in answer]
                assert listed == [each for each in expected if user != 7001 or each[0] not in (30, 31)][:k], (
                    steps,
                    user,
                )


@pytest.mark.contract
def test_a_basket_of_which_nothing_is_known_gets_the_steps_that_need_no_user(
    shop: Database, application: Connection, falling_back: Callable[..., None]
) -> None:
    view(application, 7001, 30, 31)
    ask = "SELECT item_id, reason FROM retail.recommend_for_items(%s, k => %s)"
    for steps, given in {
        ("query", "fold_in", "popular"): {"query": CHOSEN},
        ("trending", "popular"): {"window": "5 days"},
        ("fold_in", "query"): {"query": CHOSEN},
    }.items():
        falling_back(steps=steps, **given)
        for k in (1, 3, 1000):
            nobody = rows(application, "SELECT item_id, reason FROM retail.recommend(NULL, %s)", k)
            assert nobody
            assert rows(application, ask, [10**12], k) == nobody, steps
        nobody = {row["item_id"] for row in nobody} - {5}
        answer = rows(application, ask, [5], 1000)
        assert {row["item_id"] for row in answer} >= nobody
        assert [row["reason"] for row in answer[:100]] == ["fold_in"] * 100
        assert len({row["item_id"] for row in answer}) == len(answer) == 119
    # a role that may not see people
    with shop.connect("postgres") as connection, transaction(connection):
        connection.execute("REVOKE SELECT ON retail.interactions, retail._fallback FROM application")
        connection.execute("SET LOCAL ROLE application")
        assert {row["reason"] for row in rows(connection, ask, [10**12], 1000)} == {"popular"}


def test_every_step_keeps_to_the_candidates_and_leaves_out_what_was_seen(
    shop: Database, application: Connection, falling_back: Callable[..., None]
) -> None:
    among = Candidates(query="SELECT product_id FROM shop.products WHERE product_id % 2 = 1")
    shop.connect("application").execute("GRANT SELECT ON shop.products TO worker")
    view(application, 7004, 5, 11, 13)
    for steps in (("query",), ("trending",), ("popular",), ("trending", "popular")):
        for window in (None, "3 days"):
            if window and steps == ("query",):
                continue
            falling_back(among, steps=steps, window=window, query=CHOSEN if "query" in steps else None)
            answer = column(application, "SELECT item_id FROM retail.recommend(7004, 1000)")
            assert answer
            assert all(item % 2 and item not in (5, 11, 13) for item in answer)
            assert len(answer) == len(set(answer))
            if "popular" in steps:  # k rows while k exist, in a quiet week too
                assert len(answer) == 60 - 3
            with_seen = column(application, "SELECT item_id FROM retail.recommend(7004, 1000, false)")
            assert set(answer) <= set(with_seen)
    scores = rows(application, "SELECT score, reason FROM retail.recommend(7004, 1000) WHERE reason = 'popular'")
    assert [row["score"] for row in scores] == sorted((row["score"] for row in scores), reverse=True)


def test_a_short_list_of_a_trained_user_is_filled_up(
    application: Connection, falling_back: Callable[..., None]
) -> None:
    """Also by items that came after the training."""
    falling_back(Candidates(query="SELECT i FROM unnest(ARRAY[1, 2, 3, 900]) i"), steps=("popular",), window="1 day")
    view(application, 7005, 900)
    answer = rows(application, "SELECT * FROM retail.recommend(1, 10, false)")
    assert [row["reason"] for row in answer] == ["trained"] * 3 + ["popular"]
    assert answer[-1]["item_id"] == 900


@pytest.mark.parametrize(
    ("steps", "window"),
    [(("query", "fold_in", "popular"), None), (("fold_in", "trending", "popular"), "5 days")],
)
def test_lists_of_all_users_are_those_of_recommend(
    shop: Database,
    application: Connection,
    falling_back: Callable[..., None],
    steps: tuple[str, ...],
    window: str | None,
) -> None:
    view(application, 7001, 30, 31)
    view(application, 7002, 900)  # which the model does not know
    falling_back(
        Candidates(query="SELECT i FROM generate_series(1, 900) i WHERE i % 3 = 0 OR i < 9"),
        steps=steps,
        window=window,
        query=CHOSEN if "query" in steps else None,
    )
    application.execute("CREATE SCHEMA IF NOT EXISTS made; GRANT ALL ON SCHEMA made TO worker")
    shop.alter(
        exclusions=Exclusions(query="SELECT 7009::bigint AS user_id, 5 AS item_id")
    )  # an exclusion makes no user
    asked = "SELECT 1 UNION SELECT 7001 UNION SELECT 7002 UNION SELECT 7003"
    for k, users in ((30, asked), *[(50, None)] * (window is None)):  # there are 45 candidates in the source
        lists.recommend_all(shop.url, shop.settings, "retail", "made.all", k=k, users=users)
        shop.connect().execute("GRANT SELECT ON made.all TO application")
        made = rows(application, "SELECT user_id, rank, item_id, score, reason FROM made.all ORDER BY 1, 2")
        whose = asked if users else "SELECT DISTINCT m.user_id FROM made.all m"
        answered = rows(
            application,
            "SELECT u.user_id, r.rank::int, r.item_id, r.score, r.reason"
            f" FROM ({whose}) u (user_id), retail.recommend(u.user_id, {k})"
            " WITH ORDINALITY r (item_id, score, reason, rank) ORDER BY 1, 2",
        )
        assert len(made) == len(answered) > k
        assert 7009 not in {row["user_id"] for row in made}
        for mine, theirs in zip(made, answered, strict=True):
            assert mine.pop("score") == pytest.approx(theirs.pop("score"), rel=1e-4, abs=1e-6)
            assert mine == theirs
        first = [row["reason"] for row in made if row["user_id"] == 7002][:1]
        assert first == [one for one in steps if one != "fold_in"][:1]


@pytest.mark.contract
def test_ids_of_other_types(shop: Database, application: Connection) -> None:
    """Text and uuid, with a last_at without time zone and a query of the application's column types."""
    item = "md5(product_id::text)::uuid"
    source = (
        f"SELECT 'ñ' || user_id AS user_id, {item} AS item_id, n AS value, at::timestamp AS last_at FROM shop.clicks"
    )
    chosen = f"SELECT ('ñ' || for_user)::varchar AS user_id, {item} AS item_id, weight AS score FROM shop.chosen"
    recommender = shop.create(
        "mixed",
        source=Source(query=source, max_nulls=0.5),
        hyperparameters=SMALL,
        fallback=Fallback(steps=("query", "trending", "popular"), window="20 days", half_life="5 days", query=chosen),
    )
    assert shop.retrain("mixed").live
    with shop.connect() as connection:
        readers.grant_reader(connection, recommender, "application", people=True)
    numbers = {value(application, "SELECT md5(%s)::uuid", str(one)): one for one in range(1, 121)}
    answer = rows(application, "SELECT * FROM mixed.recommend('ñ7001', 120)")
    assert [numbers[row["item_id"]] for row in answer[:4]] == [5, 8, 6, 7]
    assert [row["reason"] for row in answer] == sorted(
        (row["reason"] for row in answer), key=["query", "trending", "popular"].index
    )
    assert len(answer) == len({row["item_id"] for row in answer}) == 120
    plain = column(application, "SELECT item_id FROM retail.popular_items(10, '20 days', '5 days')")
    mixed = column(application, "SELECT item_id FROM mixed.popular_items(10, '20 days', '5 days')")
    assert [numbers[one] for one in mixed] == plain


def test_without_fold_in_nobody_is_folded_in(application: Connection, falling_back: Callable[..., None]) -> None:
    view(application, 7006, 3, 4)
    assert value(application, "SELECT retail.predict(7006, 5)") is not None
    assert len(rows(application, "SELECT * FROM retail.similar_users(7006)")) == 10
    falling_back(steps=("popular",))
    assert value(application, "SELECT retail.predict(7006, 5)") is None
    assert rows(application, "SELECT * FROM retail.similar_users(7006)") == []
    assert {row["reason"] for row in rows(application, "SELECT * FROM retail.recommend(7006)")} == {"popular"}


def test_published_seen_items_need_no_right_on_the_source_unless_a_step_does(
    shop: Database, falling_back: Callable[..., None]
) -> None:
    administration(shop.server).execute("CREATE ROLE clerk_of_shop LOGIN")
    with shop.connect() as worker, shop.connect("application") as owner, shop.connect("clerk_of_shop") as clerk:
        recommender = shop.alter(source=CLICKS.model_copy(update={"seen": "published"}))
        assert recommender.definition.steps == ("popular",)
        assert shop.retrain().live
        said = "\n".join(readers.grant_reader(worker, recommender, "clerk_of_shop", people=True))
        assert "shop.clicks" not in said
        assert {row["reason"] for row in rows(clerk, "SELECT * FROM retail.recommend(99999)")} == {"popular"}
        with pytest.raises(ReadersLackRights, match="clerk_of_shop may not use what the fallback"):
            falling_back(steps=("fold_in", "popular"))
        with pytest.raises(ReadersLackRights, match=r"GRANT SELECT ON shop\.chosen"):
            falling_back(steps=("query",), query=CHOSEN)
        owner.execute("GRANT USAGE ON SCHEMA shop TO clerk_of_shop; GRANT SELECT ON shop.chosen TO clerk_of_shop")
        falling_back(steps=("query",), query=CHOSEN)
        assert column(clerk, "SELECT item_id FROM retail.recommend(99999)") == [5, 6, 7]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            clerk.execute("SELECT * FROM retail.popular_items(3, '7 days')")
        owner.execute("REVOKE ALL ON shop.chosen FROM clerk_of_shop")
        assert any(
            "shop.chosen" in line for line in readers.grant_reader(worker, recommender, "clerk_of_shop", people=True)
        )
        worker.execute("REVOKE ALL ON ALL TABLES IN SCHEMA retail FROM clerk_of_shop")
    shop.alter(source=CLICKS)
    assert shop.retrain().live


def test_decay_flows_through_training_evaluation_and_files(shop: Database, recstore: Command, tmp_path: Path) -> None:
    """What SQL returns for a part is what Python measures; a file brings half-life and reference to another recommender."""
    shop.create("decayed", source=CLICKS, hyperparameters=SMALL, confidence=Confidence(half_life="5 days"))
    answer = recstore("evaluate decayed --sql --search exact --k 10 --json")
    found = {result["name"].split(",")[0]: result["metrics"] for result in answer.json["results"]}
    assert found["decayed"]["ndcg@10"] == found["decayed through SQL"]["ndcg@10"]
    assert shop.retrain("decayed").live
    assert shop.retrain("decayed").live  # and its gate
    assert refresh(shop.url, shop.settings, "decayed").users == 0  # what is solved again is what was trained
    with shop.connect() as connection:
        constants, newest = rows(
            connection,
            "SELECT g.confidence, extract(epoch FROM newest)::float8 AS newest FROM recstore_private.generations g"
            " JOIN recstore_private.pointers USING (generation) JOIN recstore_private.recommenders r ON r.id = g.recommender_id,"
            " (SELECT max(at) AS newest FROM shop.clicks WHERE at <= now() AND n > 0 AND n <> 'NaN') c WHERE r.name = 'decayed'",
        )[0].values()
        assert constants["half_life"] == 5 * 86400
        assert newest - 86400 < constants["reference"] / 1e6 <= newest + 1e-5
        exporting.export(shop.url, "decayed", tmp_path / "decayed.npz")
        import_generation(shop.url, shop.settings, "copied", tmp_path / "decayed.npz", create=True)
        vectors = "SELECT ({0}._fold_in(g, {0}._pairs_of(7))).preference::real[] FROM {0}._generation g"
        mine, copied, plain = (np.array(value(connection, vectors.format(n))) for n in ("decayed", "copied", "retail"))
        np.testing.assert_allclose(mine, copied, atol=1e-5)
        assert np.abs(mine - plain).max() > 0.01


WRONG: dict[str, tuple[Fallback, type[Exception], str]] = {
    "no score": (
        Fallback(steps=("query",), query="SELECT product_id AS item_id FROM shop.chosen"),
        FallbackInvalid,
        "yields the columns item_id, not item_id and score",
    ),
    "another column": (
        Fallback(steps=("query",), query="SELECT 1 AS item_id, 1 AS score, 1 AS rank"),
        FallbackInvalid,
        "item_id, score, rank",
    ),
    "a score that is no number": (
        Fallback(steps=("query",), query="SELECT 1 AS item_id, 'x'::text AS score"),
        FallbackInvalid,
        "the score has the type text",
    ),
    "wider ids": (
        Fallback(steps=("query",), query="SELECT 1::bigint AS item_id, 1 AS score"),
        FallbackInvalid,
        "item_id has the type bigint, but the source's is integer",
    ),
    "another type of users": (
        Fallback(steps=("query",), query="SELECT 'a'::text AS user_id, 1 AS item_id, 1 AS score"),
        FallbackInvalid,
        "user_id has the type text",
    ),
    "a mistake": (Fallback(steps=("query",), query="SELEC 1"), FallbackInvalid, 'at or near "SELEC"'),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_query_is_refused(shop: Database, case: str) -> None:
    fallback, error, words = WRONG[case]
    with pytest.raises(error, match=words):
        shop.alter(fallback=fallback)


@pytest.mark.parametrize("n", [1e308, 5e-324])
def test_no_value_of_a_user_breaks_what_others_are_shown(application: Connection, n: float) -> None:
    application.execute("INSERT INTO shop.clicks SELECT 7009, 3, %s, now() FROM generate_series(1, 2)", [n])
    assert len(rows(application, "SELECT * FROM retail.popular_items(3, '20 days')")) == 3


def test_no_numeric_value_beyond_double_precision_is_an_error(
    shop: Database, application: Connection, falling_back: Callable[..., None]
) -> None:
    falling_back(steps=("fold_in", "popular"))
    rest = (
        " UNION ALL SELECT 7009, 3, w.n, now()"
        " FROM (VALUES (1e400), (-1e400), (1e-400), ('NaN'::numeric), ('Infinity'::numeric)) w (n)"
    )
    query = "SELECT user_id, product_id AS item_id, n::numeric AS value, at AS last_at FROM shop.clicks"
    shop.alter(source=Source(query=query + rest))
    assert len(rows(application, "SELECT * FROM retail.popular_items(3, '20 days')")) == 3
    assert rows(application, "SELECT reason FROM retail.recommend(7009, 1)") == [{"reason": "fold_in"}]
    # one usable item, as its first two rows have it
    pairs = 'SELECT cardinality(p.item_ids) AS items, p."values"[1] AS value FROM retail._pairs_of(7009) p'
    assert rows(shop.connect(), pairs) == [{"items": 1, "value": pytest.approx(1e30)}]


def test_a_window_longer_than_time_counts_everything(application: Connection) -> None:
    counted = "SELECT * FROM retail.popular_items(50, %s::interval)"
    everything = rows(application, counted, "4000 years")
    assert everything
    for window in ("300000 years", timedelta.max):
        assert rows(application, counted, window) == everything


def test_what_counts_times_needs_them(shop: Database) -> None:
    timeless = Source(table="shop.views", user="user_id", item="product_id", value="view_count")
    for sections in (
        {"fallback": Fallback(steps=("trending",))},
        {"fallback": Fallback(window="7 days")},
        {"fallback": Fallback(half_life="7 days")},
        {"confidence": Confidence(half_life="30 days")},
    ):
        with pytest.raises(SourceInvalid, match=r"no column last_at.*--last-at"), shop.connect() as connection:
            registry.create(connection, "timeless", Definition(source=timeless, **sections))
    shop.create("timeless", source=timeless, hyperparameters=SMALL)
    assert shop.retrain("timeless").live
    with shop.connect() as connection:
        for call in ("popular_items(3, '7 days')", "popular_items(3, half_life => '7 days')"):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no times to count by"):
                connection.execute(f"SELECT * FROM timeless.{call}")
        for call in ("popular_items(3, '0 days')", "popular_items(3, half_life => '-1 day')"):
            with pytest.raises(psycopg.errors.InvalidParameterValue, match="must be above 0"):
                connection.execute(f"SELECT * FROM timeless.{call}")
        assert len(rows(connection, "SELECT * FROM timeless.popular_items(3, NULL, NULL)")) == 3


@pytest.mark.contract
def test_an_older_recommender_is_upgraded(shop: Database, application: Connection) -> None:
    """To the new signature, with its grants, and the view that is new."""
    with shop.connect() as worker:
        recommender = registry.get(worker, "net")
        worker.execute(
            "DROP FUNCTION net.popular_items, net._counted_since, net._fallback_items; DROP VIEW net._fallback"
        )
        worker.execute(
            "CREATE FUNCTION net.popular_items(k bigint DEFAULT 10) RETURNS SETOF net.popular_item LANGUAGE sql STABLE"
            " AS 'SELECT item_id, users, views FROM net.item_vectors LIMIT k'"
        )
        worker.execute("REVOKE ALL ON FUNCTION net.popular_items FROM PUBLIC")
        worker.execute("GRANT EXECUTE ON FUNCTION net.popular_items TO application")
        worker.execute(
            "UPDATE recstore_private.recommenders SET object_digests = object_digests - 'function popular_items'"
        )
        objects.upgrade(worker, shop.settings, recommender)
        assert objects.missing(worker, recommender) == objects.stale(worker, recommender) == []
        shop.alter("net", fallback=Fallback(steps=("query",), query=CHOSEN))
    assert column(application, "SELECT item_id FROM net.recommend(99999)") == [5, 6, 7]
    assert rows(application, "SELECT * FROM net.popular_items(3, '7 days')")


@pytest.mark.usefixtures("shop")
def test_commands_set_and_describe_the_fallback(recstore: Command) -> None:
    said = recstore("alter retail --fallback fold_in,trending,popular --fallback-window", "14 days").expect(0)
    assert "gets, from now on, fold_in, then trending, then popular" in said.out
    assert "next training" not in said.out
    assert "window = 14 days" in recstore("show retail").out
    recstore("alter retail --fallback fold_in,nix").expect(
        2, "there is no step 'nix'; there are fold_in, popular, trending, query"
    )
    recstore("alter retail --fallback popular --fallback-window", "a while").expect(2, 'for example "30 days"')
    recstore("alter retail --fallback query").expect(2, "the step query and the query belong together")
    recstore("alter retail --fallback fold_in").expect(2, "a window requires the step popular or trending")
    recstore("popular retail --window", "7 days", "--sql").expect(0, "popular_items(10, \"window\" => '7 days')")
    recstore("popular retail --half-life", "7 days", "--sql").expect(
        0, "popular_items(10, half_life => '7 days')", "r.views DESC"
    )
    recstore("recommend retail 99999").expect(0, "trending")
    said = recstore("alter retail --fallback none --fallback-window none").expect(0)
    assert "fold_in, then popular" in said.out
