"""Whatever a role and a database set, of all that PostgreSQL lets them set, a training and its answers are the same."""

from typing import Any

import pytest
from conftest import Database, superuser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import look

from recstore import registry
from recstore.definition import Source

SOURCES = {
    "a table": Source(table="shop.views", item="product_id", value="view_count"),
    "raw events": Source(query="SELECT user_id, product_id AS item_id, 1 AS value FROM shop.views"),
    "dated text": Source(
        query="SELECT user_id::text, product_id::text AS item_id, view_count::numeric AS value,"
        " timestamp '2026-01-31' + user_id * interval '1 day' AS last_at FROM shop.views"
    ),
    "a quoted literal": Source(
        query="SELECT user_id, product_id AS item_id, view_count AS value FROM shop.views WHERE 'a\\' <> E'a\\''"
    ),
}

APART = {
    "seed",
    "role",
    "session_authorization",
    "transaction_isolation",
    "transaction_read_only",
    "transaction_deferrable",
}
"""Settings that are no settings of a role."""

TEXTS = {
    "DateStyle": ["German", "SQL, DMY", "Postgres, YMD"],
    "TimeZone": ["<+0545>-05:45", "America/St_Johns"],
    "client_encoding": ["LATIN1", "SJIS", "SQL_ASCII"],
    "search_path": ["", "shop", '"$user", public, pg_catalog'],
    "lc_numeric": ["POSIX"],
    "restrict_nonsystem_relation_kind": ["view, foreign-table"],
}


def values(setting: dict[str, Any]) -> list[str]:
    """Return the most unusual values of a setting."""
    if setting["name"].endswith("_timeout"):
        return ["1000"]
    match setting["vartype"]:
        case "bool":
            return ["on", "off"]
        case "enum":
            return list(setting["enumvals"])
        case "integer" | "real":
            return [setting["min_val"], setting["max_val"]]
        case _:
            return TEXTS.get(setting["name"], [])


@pytest.mark.campaign
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_setting_changes_a_training(shop: Database, data: st.DataObject) -> None:
    known = look(
        shop,
        "SELECT name, vartype, enumvals, min_val, max_val FROM pg_settings WHERE context = 'user' AND name !~ '^transaction_'",
    )
    offered = {row["name"]: values(row) for row in known if row["name"] not in APART and values(row)}
    chosen = {
        name: data.draw(st.sampled_from(offered[name]), label=name)
        for name in data.draw(st.sets(st.sampled_from(sorted(offered)), max_size=40))
    }
    source = SOURCES[data.draw(st.sampled_from(sorted(SOURCES)))]
    with superuser(shop.server, shop.name) as connection:
        expected = answers(shop, source)
        for name, value in chosen.items():
            owner = data.draw(st.sampled_from([f"DATABASE {shop.name}", f"ROLE worker IN DATABASE {shop.name}"]))
            connection.execute(f"ALTER {owner} SET {name} = '{value}'")
        try:
            assert answers(shop, source) == expected
        finally:
            connection.execute(
                f"ALTER DATABASE {shop.name} RESET ALL; ALTER ROLE worker IN DATABASE {shop.name} RESET ALL"
            )


def answers(shop: Database, source: Source) -> list[Any]:
    """Create, train, ask and drop a recommender."""
    recommender = shop.create(source=source)
    try:
        shop.retrain()
        with shop.connect() as connection:
            asked = "SELECT item_id, round(score::numeric, 4), reason FROM retail.recommend('1', 5)"
            return [tuple(map(str, row.values())) for row in connection.execute(asked)]
    finally:
        with shop.connect() as connection:
            registry.drop(connection, shop.settings, recommender)
