"""Generations that retrain --no-publish leaves, and two generations compared."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from conftest import Command, Database, database_from
from support import Generations, states
from support_sql import rows, transaction, value

from recstore import pipeline, registry, requests
from recstore.background import dispatch
from recstore.embedded import Server
from recstore.operations import jobs, readers
from recstore.postgres.connection import Connection


@pytest.mark.contract
def test_a_withheld_generation_goes_live_by_its_number_alone(trained: Database, recstore: Command) -> None:
    live = recstore("generations retail --json").json[0]["generation"]
    with trained.connect() as connection:
        requests.ask(connection, "retail", "retrain")
    told = recstore("retrain retail --no-publish").expect(
        0, "is complete and withheld", "recstore prune retail --withheld"
    )
    (apart,) = (number for number, state in states(trained).items() if state == "withheld")
    assert f"recstore publish retail {apart}" in told.out
    with trained.connect() as connection:
        # the request asks for a generation that goes live
        assert value(connection, "SELECT state FROM recstore.requests") == "waiting"
        dispatch.dispatch(trained.url, trained.settings, lambda *_: None)
        assert value(connection, "SELECT retail.generation()") == live
    recstore("status retail").expect(0, f"withheld      generation {apart}.", f"recstore publish retail {apart}")
    recstore("show retail").expect(0, f"withheld: generation {apart} goes live by recstore publish retail {apart}")
    recstore("generations retail").expect(0, f"goes live by recstore publish retail {apart}")
    recstore("publish retail").expect(1, "has no generation ready to publish")
    recstore("doctor retail")
    recstore("retrain retail").expect(0, "is live")
    recstore("prune retail --keep 1 --yes").expect(0, f"removed {live}")
    newest = max(number for number, state in states(trained).items() if state == "live")
    assert states(trained) == {apart: "withheld", newest: "live", newest + 1: "next"}
    with trained.connect() as connection:
        assert value(connection, "SELECT retail.generation()") == newest
    recstore(f"publish retail {apart} --dry-run").expect(0, "recstore_private.pointers")
    recstore(f"publish retail {apart}").expect(0, f"generation {apart} of retail is live")
    assert states(trained)[apart] == "live"
    recstore(f"publish retail {apart}").expect(
        2, f"Generation {apart} of 'retail' does not exist or cannot be made live"
    )


def test_a_newer_ready_generation_does_not_replace_the_one_that_was_published_by_its_number(
    trained: Database, recstore: Command
) -> None:
    assert trained.retrain().live
    apart = recstore("retrain retail --no-publish --json").expect(0).json["generation"]
    recstore("rollback retail").expect(0)
    held = recstore("retrain retail --json").expect(4).json["generation"]
    recstore(f"publish retail {apart}").expect(
        0, f"generation {apart} of retail is live", f"Generation {held} is newer and ready, and stays held"
    )
    dispatch.dispatch(trained.url, trained.settings, lambda *_: None)
    assert states(trained)[apart] == "live"
    recstore("release retail").expect(0, "go live again")
    assert f"generation {held} is held" not in recstore("status retail").out
    dispatch.dispatch(trained.url, trained.settings, lambda *_: None)
    assert states(trained)[held] == "live"


def test_the_newest_withheld_generation_stays_until_it_is_pruned(trained: Database, recstore: Command) -> None:
    first, second = (recstore("retrain retail --no-publish --json").expect(0).json["generation"] for _ in range(2))
    assert states(trained) | {first: "", second: "withheld"} == states(trained) | {first: ""}
    assert first not in states(trained)
    recstore("prune retail").expect(0)
    assert states(trained)[second] == "withheld"
    recstore("prune retail --withheld --dry-run").expect(0, f"_items_{second}")
    recstore("prune retail --withheld").expect(0, f"removed {second}")
    assert second not in states(trained)


def test_a_downgrade_makes_no_withheld_generation_live(trained: Database, recstore: Command) -> None:
    apart = recstore("retrain retail --no-publish --json").expect(0).json["generation"]
    recstore("db downgrade 0006").expect(2, "withheld generations, which the next dispatch removes")
    recstore("db downgrade 0006 --yes").expect(0)
    recstore("db upgrade").expect(0)
    dispatch.dispatch(trained.url, trained.settings, lambda *_: None)
    assert apart not in states(trained)


def test_the_schedule_trains_what_is_withheld_alone(trained: Database) -> None:
    with trained.connect() as connection:
        connection.execute("DELETE FROM recstore_private.requests")
    with trained.connect("application") as application:
        application.execute("INSERT INTO shop.views VALUES (9001, 1, 1), (9001, 2, 1)")
    apart = pipeline.retrain_apart(trained.url, trained.settings, "retail")
    assert apart.withheld
    assert not apart.live
    jobs.prune(trained.url, trained.settings, "retail", withheld=True)
    with trained.connect() as connection:
        requests.insert(connection, "retail", "retrain", "schedule")
    outcome = trained.retrain(requested=True)
    assert outcome.live
    assert not outcome.skipped


@pytest.fixture(scope="module")
def two(server: Server, published_template: str) -> Iterator[tuple[Database, int, int]]:
    """Two generations of random factors; the later one is live."""
    with database_from(server, published_template) as database:
        with database.connect() as connection:
            first = value(connection, "SELECT retail.generation()")
        second = Generations(database).publish().generation
        yield database, first, second


@pytest.fixture
def application(two: tuple[Database, int, int]) -> Iterator[Connection]:
    with two[0].connect("application") as connection, transaction(connection):
        yield connection


COMPARE = "SELECT * FROM retail.compare_generations(%s, %s, %s, %s)"


def lists(connection: Connection, generation: int, k: int) -> dict[int, list[int]]:
    """Every user's list in a generation."""
    with connection.transaction(force_rollback=True):
        connection.execute(f"SET LOCAL recstore.generation = {generation}")
        found = rows(
            connection,
            "SELECT u.user_id, ARRAY(SELECT r.item_id FROM retail.recommend(u.user_id, %s) r) AS items"
            " FROM retail.user_vectors u",
            k,
        )
    return {row["user_id"]: row["items"] for row in found}


@pytest.mark.contract
def test_two_generations_overlap_as_numpy_says(two: tuple[Database, int, int], application: Connection) -> None:
    _, first, second = two
    a, b = lists(application, first, 20), lists(application, second, 20)
    overlaps = np.array([len(set(a[user]) & set(b[user])) / 20 for user in a])
    (found,) = rows(application, COMPARE, first, second, 20, 1000)
    assert found["users"] == len(a) == 240
    assert found["first_changed"] == sum(a[user][0] != b[user][0] for user in a)
    assert found["overlap"] == pytest.approx(overlaps.mean())
    assert 0 < found["overlap"] < 1
    quantiles = [found["overlap_p10"], found["overlap_p50"], found["overlap_p90"]]
    assert quantiles == pytest.approx(np.quantile(overlaps, [0.1, 0.5, 0.9]).tolist())
    counts = {item: [sum(item in lists_of[user] for user in a) for lists_of in (a, b)] for item in range(1, 121)}
    changed = [(item, *n) for item, n in counts.items() if n[0] != n[1]]
    items = rows(application, "SELECT * FROM retail.compare_items(%s, %s, 20)", first, second)
    assert [tuple(row.values()) for row in items] == sorted(changed, key=lambda row: (-abs(row[2] - row[1]), row[0]))


def test_a_generation_agrees_with_itself_for_the_same_users_each_time(
    two: tuple[Database, int, int], application: Connection
) -> None:
    _, first, second = two
    for number in (first, second):
        same = rows(application, COMPARE, number, number, 10, 30)
        assert [tuple(row.values()) for row in same] == [(30, 1, 1, 1, 1, 0)]
    assert rows(application, "SELECT * FROM retail.compare_items(%s, %s)", first, first) == []
    assert rows(application, COMPARE, first, second, 10, 30) == rows(application, COMPARE, first, second, 10, 30)


@pytest.mark.contract
def test_the_setting_is_as_before_and_no_other_session_sees_another_generation(
    two: tuple[Database, int, int], application: Connection
) -> None:
    database, first, second = two
    setting = "SELECT current_setting('recstore.generation', true)"
    with database.connect("application") as other:
        before = rows(other, "SELECT * FROM retail.recommend(1)")
        rows(application, COMPARE, first, second, 10, 30)
        assert value(application, setting) == ""
        assert value(application, "SELECT retail.generation()") == second
        assert rows(application, "SELECT * FROM retail.recommend(1)") == before
        assert rows(other, "SELECT * FROM retail.recommend(1)") == before
        assert value(other, setting) is None
    application.execute(f"SET LOCAL recstore.generation = {first}")
    canary = rows(application, "SELECT * FROM retail.recommend(1)")
    rows(application, COMPARE, second, first, 10, 30)
    with pytest.raises(psycopg.errors.InvalidParameterValue), application.transaction():
        rows(application, COMPARE, second, 999, 10, 30)
    assert value(application, setting) == str(first)
    assert rows(application, "SELECT * FROM retail.recommend(1)") == canary != before


@pytest.mark.parametrize(
    ("a", "b", "k", "users", "words"),
    [
        (999, None, 10, 10, "retail has no complete generation 999"),
        ("live", None, 10, 10, "retail has no complete generation NULL"),
        ("live", "next", 10, 10, "retail has no complete generation"),
        ("live", "live", 0, 10, "k is the number of rows wanted"),
        ("live", "live", 10, 0, "users is the number of users to compare and must be at least 1, not 0"),
        ("live", "live", 10, None, "must be at least 1, not NULL"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    two: tuple[Database, int, int], application: Connection, a: Any, b: Any, k: int, users: Any, words: str
) -> None:
    numbers = {"live": two[2], "next": two[2] + 1}
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=words):
        rows(application, COMPARE, numbers.get(a, a), numbers.get(b, b), k, users)


def test_a_role_without_people_cannot_compare(trained: Database) -> None:
    with trained.connect() as connection:
        live = value(connection, "SELECT retail.generation()")
        readers.grant_reader(connection, registry.get(connection, "retail"), "application")
    with trained.connect("application") as application, pytest.raises(psycopg.errors.InsufficientPrivilege):
        rows(application, COMPARE, live, live, 10, 10)


@pytest.mark.usefixtures("trained")
def test_the_command_compares_with_titles(recstore: Command) -> None:
    recstore("alter retail --titles shop.products:product_id:title").expect(0)
    live = recstore("generations retail --json").json[0]["generation"]
    recstore(f"compare retail {live} {live} --users 20").expect(
        0, "20 users, lists of 10", "100.0%", "0 users have another first item", "No item is in more or fewer lists"
    )
    recstore("alter retail --factors 4 --seed 5").expect(0)
    other = recstore("retrain retail --no-publish --force --json").expect(0).json["generation"]
    found = recstore(f"compare retail {live} {other} --users 20 -k 5 --json").expect(0).json
    assert (found["users"], found["overlap"] < 1) == (20, True)
    assert found["items"][0]["title"] == f"product {found['items'][0]['item_id']}"
    recstore(f"compare retail {live} {other} --users 20 -k 5").expect(0, "item id  lists a  lists b  title", "product ")
    recstore(f"compare retail {live} 999").expect(2, "Generation 999 of 'retail' does not exist")
