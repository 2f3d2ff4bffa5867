"""Exclusions: what an application's SELECT says that recommend() leaves out for a user."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import Command, Database, copy_of, make_database, make_template, superuser
from psycopg import errors as pg
from support_sql import (
    Factors,
    assert_ranking,
    column,
    read_factors,
    repeating,
    rows,
    transaction,
    value,
    wait_for_other_sessions,
)

from recstore import doctor, registry
from recstore.definition import Candidates, Exclusions, Hyperparameters, Publication, Source
from recstore.embedded import Server
from recstore.errors import ExclusionsInvalid, PermissionDenied, ReadersLackRights, RecstoreError
from recstore.operations import readers, repair
from recstore.postgres.connection import Connection
from recstore.source import candidates
from recstore.sql import objects

SMALL = Hyperparameters(factors=16, iterations=3, regularization=3, alpha=40)
HIDDEN = Exclusions(query="SELECT item_id, user_id FROM shop.hidden")


@pytest.fixture(scope="module")
def excluding(server: Server, shop_template: str) -> str:
    """The small shop with shop.hidden, and recommenders exact and hnsw that leave out what is there; as a template."""
    database = make_database(server, shop_template)
    with database.connect() as worker:
        with database.connect("application") as application:
            application.execute(
                "CREATE TABLE shop.hidden (user_id bigint, item_id bigint, PRIMARY KEY (user_id, item_id));"
                " GRANT SELECT ON shop.hidden TO worker"
            )
        for name in ("exact", "hnsw"):
            recommender = database.create(
                name,
                exclusions=HIDDEN,
                candidates=Candidates(table="shop.products", condition="visible"),
                hyperparameters=SMALL,
                publication=Publication(search=name, ann_recall=0.5),
            )
            assert database.retrain(name).live
            readers.grant_reader(worker, recommender, "application", people=True)
    return make_template(database, "template_excluding")


asked = copy_of("excluding", "module")
"""For tests that change it in a transaction that is rolled back."""

changed = copy_of("excluding")
"""For tests that change it."""


@pytest.fixture(scope="module")
def of(asked: Database) -> Factors:
    with asked.connect() as connection:
        return read_factors(connection, "exact")


@pytest.fixture
def application(asked: Database) -> Iterator[Connection]:
    """The application's own role, in a transaction that is rolled back."""
    with asked.connect("application") as connection, transaction(connection):
        yield connection


def ids(connection: Connection, call: str) -> list[Any]:
    return column(connection, f"SELECT r.item_id FROM {call} r")


def hide(connection: Connection, user: int, items: list[int]) -> None:
    connection.execute("INSERT INTO shop.hidden SELECT %s, unnest(%s::bigint[])", [user, items])


@pytest.mark.contract
@pytest.mark.parametrize("seed", range(6))
def test_what_was_hidden_a_moment_ago_is_in_no_list(application: Connection, of: Factors, seed: int) -> None:
    """NumPy's list at once, and k rows while k exist, among candidates and next to what the call excludes."""
    random = np.random.default_rng(seed)
    visible = set(random.choice(of.items, int(random.choice([30, 90])), replace=False).tolist())
    application.execute("UPDATE shop.products SET visible = product_id = ANY (%s)", [list(visible)])
    user = int(random.choice(of.users))
    seen = set(column(application, "SELECT product_id FROM shop.views WHERE user_id = %s", user))
    application.execute("INSERT INTO shop.views VALUES (5001, 3, 1)")
    best = ids(application, f"exact.recommend({user}, 200)")
    hidden = [*best[::2], *random.choice(of.items, 10).tolist(), 10**12]
    for one in (user, 5001, 99999):
        hide(application, one, sorted(set(hidden)))
    hide(application, user + 1, best)  # another user's
    besides = random.choice(of.items, 5).tolist()
    k = int(random.choice([3, 10, 200]))
    for exclude_seen in (True, False):
        without = {*hidden, *besides, *(seen if exclude_seen else ()), *(set(of.items) - visible)}
        call = f"recommend({user}, {k}, {exclude_seen}, ARRAY{besides})"
        answer = rows(application, f"SELECT * FROM exact.{call}")
        assert_ranking(answer, of.items, of.scores[of.user(user)], k, excluded=list(without))
        found = ids(application, f"hnsw.{call}")
        assert len(found) == len(set(found)) == min(k, len(visible - without))
        assert set(found) <= visible - without
    for one, reason, known in ((5001, "fold_in", {3}), (99999, "popular", set())):
        left = visible - set(hidden) - known
        for name in ("exact", "hnsw"):
            answer = rows(application, f"SELECT * FROM {name}.recommend({one}, {k})")
            assert {row["reason"] for row in answer} == {reason}
            assert len(answer) == min(k, len(left))
            assert {row["item_id"] for row in answer} <= left


def test_what_is_no_id_is_ignored(changed: Database) -> None:
    before = _answer(changed)
    nothing = "SELECT NULL::bigint AS user_id, 3 AS item_id UNION ALL SELECT 1, NULL UNION ALL SELECT 5000000000, 3"
    for query in (nothing, f"{nothing} UNION ALL SELECT 1, n FROM unnest(ARRAY[{before[0]}, {before[0]}]) n"):
        changed.alter("exact", exclusions=Exclusions(query=query))
    assert _answer(changed) == [item for item in before if item != before[0]]


def _answer(database: Database) -> list[int]:
    with database.connect() as connection:
        return ids(connection, "exact.recommend(1, 200)")


@pytest.mark.contract
def test_the_lookup_of_a_user_uses_the_application_s_index(changed: Database) -> None:
    with changed.connect() as first:
        wait_for_other_sessions(first)  # and what they counted
    with changed.connect("application") as application, changed.connect() as worker:
        application.execute("INSERT INTO shop.hidden SELECT n, n % 100 + 1 FROM generate_series(1, 30000) n")
        application.execute("ANALYZE shop.hidden")
        recommender = registry.get(worker, "exact")
        assert candidates.looked_up_by_index(worker, recommender, "exclusions", "user_id")
        counters = "SELECT idx_scan, seq_scan FROM pg_stat_user_tables WHERE relid = 'shop.hidden'::regclass"
        application.execute("SELECT pg_stat_force_next_flush()")
        (before,) = rows(application, counters)
        for user in range(1, 13):  # also with a generic plan
            ids(application, f"exact.recommend({user}, 5)")
        application.execute("SELECT pg_stat_force_next_flush()")
        (after,) = rows(application, counters)
        assert after == {"idx_scan": before["idx_scan"] + 12, "seq_scan": before["seq_scan"]}
        # also where each user is in one partition, with many rows
        application.execute(
            "CREATE TABLE shop.parted (person bigint, thing bigint) PARTITION BY HASH (person);"
            " CREATE TABLE shop.parted0 PARTITION OF shop.parted FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
            " CREATE TABLE shop.parted1 PARTITION OF shop.parted FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
            " INSERT INTO shop.parted SELECT n % 100, n FROM generate_series(1, 30000) n; CREATE INDEX ON shop.parted (person);"
            " GRANT SELECT ON shop.parted TO worker; ANALYZE shop.parted"
        )
        changed.alter(
            "exact", exclusions=Exclusions(query="SELECT person AS user_id, thing AS item_id FROM shop.parted")
        )
        assert candidates.looked_up_by_index(worker, registry.get(worker, "exact"), "exclusions", "user_id")


@pytest.mark.contract
@pytest.mark.parametrize(
    ("kind", "theirs"), [("uuid", "uuid"), ("text", "varchar(40)"), ("bigint", "smallint"), ("smallint", "bigint")]
)
def test_ids_of_any_type_are_compared_through_an_index(shop: Database, kind: str, theirs: str) -> None:
    ours, other = (
        (f"md5({n})::uuid" if kind == "uuid" else f"{n.removesuffix('::text')}::{cast}")
        for n, cast in (("n::text", kind), ("n::text", theirs))
    )
    with shop.connect("application") as application:
        application.execute(
            f"CREATE TABLE shop.typed AS SELECT u.id AS user_id, i.id AS item_id FROM generate_series(1, 40) a,"
            f" generate_series(1, 8) b, LATERAL (SELECT {ours} AS id FROM (SELECT a AS n) s) u,"
            f" LATERAL (SELECT {ours} AS id FROM (SELECT (a * 7 + b * b) % 60 AS n) s) i;"
            f" CREATE TABLE shop.hidden AS SELECT {other} AS person, {other} AS thing FROM generate_series(0, 19999) n;"
            " CREATE INDEX ON shop.hidden (person); GRANT SELECT ON shop.typed, shop.hidden TO worker; ANALYZE shop.hidden"
        )
    shop.create(
        source=Source(table="shop.typed"),
        exclusions=Exclusions(query="SELECT person AS user_id, thing AS item_id FROM shop.hidden;"),
        hyperparameters=SMALL,
    )
    assert shop.retrain().live
    with shop.connect() as connection:
        recommender = registry.get(connection, "retail")
        assert candidates.looked_up_by_index(connection, recommender, "exclusions", "user_id")
        user = value(connection, f"SELECT {ours} FROM (SELECT 7 AS n) s")  # for whom the item of that number is hidden
        found = ids(connection, f"retail.recommend('{user}', 1000, false)")
        assert len(found) == value(connection, "SELECT count(*) - 1 FROM retail.item_vectors")
        assert user not in found


@pytest.mark.contract
def test_the_caller_s_own_rights_decide(changed: Database) -> None:
    call = "SELECT item_id FROM exact.recommend(1, 5)"
    with changed.connect() as worker, superuser(changed.server, changed.name) as administrator:
        administrator.execute("CREATE ROLE clerk LOGIN; GRANT USAGE ON SCHEMA shop TO clerk")
        administrator.execute("GRANT SELECT ON shop.views, shop.products TO clerk")
        try:
            recommender = registry.get(worker, "exact")
            printed = readers.grant_reader(worker, recommender, "clerk", people=True)
            assert any("of what the exclusions read" in line and "shop.hidden TO clerk" in line for line in printed)
            found = doctor.examine(changed.settings, "exact", readers=["clerk"], quick=True)
            assert "reader-source" in {finding.check for finding in found if finding.level == "error"}
            with changed.connect("clerk") as clerk:
                with pytest.raises(pg.InsufficientPrivilege, match="denied for table hidden"):
                    clerk.execute(call)
                administrator.execute("GRANT SELECT ON shop.hidden TO clerk")
                best = column(clerk, call)
                administrator.execute(
                    "ALTER TABLE shop.hidden ENABLE ROW LEVEL SECURITY;"
                    " CREATE POLICY own ON shop.hidden TO clerk USING (item_id = 5)"
                )
                administrator.execute("INSERT INTO shop.hidden SELECT 1, unnest(%s::int[])", [best])
                assert column(clerk, call) == [item for item in best if item != 5]
                administrator.execute("CREATE TABLE shop.owned AS SELECT 1 AS user_id, 5 AS item_id")
                administrator.execute("GRANT SELECT ON shop.owned TO worker")
                other = Exclusions(query="SELECT user_id, item_id FROM shop.owned")
                with pytest.raises(ReadersLackRights, match=r"exclusions of .*GRANT SELECT ON shop\.owned TO clerk;"):
                    changed.alter("exact", exclusions=other)
                assert len(column(clerk, call)) == 5
                changed.alter("exact", exclusions=Exclusions())
                assert column(clerk, call) == best
                assert column(clerk, "SELECT user_id FROM exact.exclusions") == []
        finally:
            administrator.execute("DROP OWNED BY clerk; DROP ROLE clerk")


def test_exclusions_come_and_go_while_readers_read_on(changed: Database) -> None:
    reader = changed.connect("application")
    without = set(range(1, 31))

    def read() -> None:
        found = ids(reader, "hnsw.recommend(7, 20, false)")
        assert len(found) == 20
        assert not set(found) & without or set(found) & without

    with repeating(read):
        for kind in ("int", "bigint", None) * 4:
            query = kind and f"SELECT 7::{kind} AS user_id, n::{kind} AS item_id FROM generate_series(1, 30) n"
            changed.alter("hnsw", exclusions=Exclusions(query=query))
    assert ids(reader, "hnsw.exclusions") == []


def test_an_upgrade_and_a_repair_bring_the_view_back(changed: Database) -> None:
    with changed.connect() as worker, changed.connect("application") as application:
        recommender = registry.get(worker, "exact")
        best = _answer(changed)
        hide(application, 1, best[:3])
        plain = changed.create("plain", hyperparameters=SMALL)
        readers.grant_reader(worker, plain, "application", people=True)
        for name, brought in (("plain", True), ("exact", False)):  # as a version without exclusions left them
            worker.execute(f"DROP VIEW {name}.exclusions")
            objects.upgrade(worker, changed.settings, registry.get(worker, name))
            assert (objects.missing(worker, registry.get(worker, name)) == []) == brought
        assert column(application, "SELECT user_id FROM plain.exclusions") == []
        assert list(repair.restore_views(worker, changed.settings, recommender)) == ["exclusions"]
        assert ids(application, "exact.recommend(1, 200)") == best[3:]
        application.execute("ALTER TABLE shop.hidden RENAME TO former")
        with pytest.raises(ExclusionsInvalid, match="hidden"):
            repair.stale_views(worker, recommender)
        assert "exclusions cannot be read" in " ".join(repair.drift(worker, recommender))
        application.execute("CREATE TABLE shop.hidden AS TABLE shop.former WITH NO DATA")
        application.execute("GRANT SELECT ON shop.hidden TO worker")
        assert repair.stale_views(worker, recommender) == {"exclusions": "shop.former instead of shop.hidden"}
        assert list(repair.restore_views(worker, changed.settings, recommender)) == ["exclusions"]
        assert ids(application, "exact.recommend(1, 200)") == best


REFUSED: dict[str, tuple[str, type[RecstoreError], str]] = {
    "one column": ("SELECT user_id FROM shop.hidden", ExclusionsInvalid, "columns user_id, not user_id and item_id"),
    "other names": ("SELECT user_id AS u, item_id FROM shop.hidden", ExclusionsInvalid, "yields the columns u, item_id"),
    "a third column": ("SELECT user_id, item_id, 1 AS x FROM shop.hidden", ExclusionsInvalid, "user_id, item_id, x"),
    "another type of users": ("SELECT 'a' AS user_id, 1 AS item_id", ExclusionsInvalid, "text, but the users' is bigint"),
    "another type of items": ("SELECT 1 AS user_id, now() AS item_id", ExclusionsInvalid, "but the items' is integer"),
    "a mistake": ("SELEC user_id, item_id FROM shop.hidden", ExclusionsInvalid, 'at or near "SELEC"'),
    "two statements": ("SELECT 1; DROP TABLE shop.hidden", ExclusionsInvalid, "multiple commands"),
    "an error": ("SELECT 1 AS user_id, 1/0 AS item_id", ExclusionsInvalid, "division by zero"),
    "no rights": ("SELECT user_id, item_id FROM shop.secret", PermissionDenied, "secret"),
}  # fmt: skip


@pytest.mark.parametrize(("query", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_wrong_exclusions_are_refused(asked: Database, query: str, error: type[RecstoreError], words: str) -> None:
    with asked.connect("application") as application:
        application.execute("CREATE TABLE IF NOT EXISTS shop.secret (user_id integer, item_id integer)")
    with pytest.raises(error, match=words):
        asked.alter("exact", exclusions=Exclusions(query=query))
    with asked.connect() as connection:
        assert registry.get(connection, "exact").definition.exclusions == HIDDEN


def test_commands_set_and_describe_exclusions(shop: Database, recstore: Command) -> None:
    with shop.connect("application") as application:
        application.execute(
            "CREATE TABLE shop.blocked AS SELECT u AS customer, n AS article FROM generate_series(1, 200) u,"
            " generate_series(1, 50) n; GRANT SELECT ON shop.blocked TO worker; ANALYZE shop.blocked"
        )
    source = "--table shop.views --item product_id --value view_count --factors 16 --iterations 2"
    query = "SELECT customer AS user_id, article AS item_id FROM shop.blocked"
    recstore(f"create retail {source} --exclude", query).expect(
        0, "leaves out each user's exclusions", "CREATE INDEX CONCURRENTLY ON shop.blocked (customer);"
    )
    recstore("retrain retail").expect(0)
    assert {row["item_id"] for row in recstore("recommend retail 1 -k 100 --json").json} <= set(range(51, 121))
    doctor_ = recstore("doctor retail")
    assert "exclusions" in doctor_.out
    assert "CREATE INDEX CONCURRENTLY ON shop.blocked (customer);" in doctor_.out
    with shop.connect("application") as application:
        application.execute("CREATE INDEX ON shop.blocked (customer)")
    assert "exclusions: query = SELECT customer" in recstore("show retail").out
    altered = recstore("alter retail --exclude none")
    assert "no user has exclusions" in altered.out
    assert "next training" not in altered.out
    assert {row["item_id"] for row in recstore("recommend retail 1 -k 100 --json").json} & set(range(1, 51))
    again = recstore("alter retail --exclude", query)
    assert "leaves out each user's exclusions, from now on\n" in again.out
    recstore("evaluate retail --sql --k 5").expect(0)
