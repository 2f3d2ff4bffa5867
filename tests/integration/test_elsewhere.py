"""pgvector in another schema, and a dump restored in another database: always as a plain role, in fresh sessions."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import VERSION, Database, database_from, make_shop, superuser
from support_sql import WITH_PEOPLE, WITHOUT_PEOPLE, column, read_factors, rows, value

from recstore import registry
from recstore.definition import Hyperparameters, Publication, Storage
from recstore.embedded import Server, tool_path
from recstore.operations import jobs, readers, schema

SMALL = Hyperparameters(factors=8, iterations=2)


@pytest.fixture
def elsewhere(server: Server) -> Iterator[Database]:
    """The small shop in a database whose pgvector is in the schema extensions, in no search_path."""
    with database_from(server, "template0") as database:
        with superuser(server, database.name) as owner:
            owner.execute("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
            owner.execute("GRANT USAGE ON SCHEMA extensions TO PUBLIC")
        schema.upgrade(database.connect(), database.url, database.settings)
        make_shop(database.connect("application"))
        yield database


@pytest.mark.contract
@pytest.mark.parametrize("vector_type", ["vector", "halfvec"])
def test_everything_works_with_pgvector_in_another_schema(elsewhere: Database, vector_type: Any) -> None:
    publication = Publication(search="hnsw", index_users=True)
    storage = Storage(vector_type=vector_type)
    recommender = elsewhere.create(hyperparameters=SMALL, publication=publication, storage=storage)
    with elsewhere.connect() as connection:
        readers.grant_reader(connection, recommender, "application", people=True)
    for _ in range(2):
        assert elsewhere.retrain().live
    for statement in [*WITHOUT_PEOPLE, *WITH_PEOPLE]:
        with elsewhere.connect("application") as fresh:
            assert rows(fresh, statement), statement
    with elsewhere.connect("application") as fresh, fresh.transaction():
        fresh.execute("SELECT retail.use_search_settings()")
        direct = (
            "SELECT p.product_id FROM shop.products p JOIN retail.item_vectors v ON v.item_id = p.product_id"
            " ORDER BY v.preference OPERATOR(extensions.<#>) (SELECT retail.user_vector(1)) LIMIT 10"
        )
        found = column(fresh, direct)
        assert set(found) == set(column(fresh, "SELECT item_id FROM retail.recommend(1, 10, false)"))
    jobs.roll_back(elsewhere.url, "retail")
    with elsewhere.connect() as connection:
        assert len(rows(connection, "SELECT * FROM retail.recommend(1, 10)")) == 10
        assert registry.drop(connection, elsewhere.settings, recommender) == []
        schema.upgrade(connection, elsewhere.url, elsewhere.settings)
        schema.check(elsewhere.url)


def tool(name: str, *arguments: str) -> str:
    """Runs pg_dump or pg_restore."""
    command = [str(tool_path(VERSION, name)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": os.defpath})
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.mark.contract
def test_a_dump_is_restored_by_a_plain_role_and_goes_on(
    server: Server, empty_template: str, shop: Database, tmp_path: Path
) -> None:
    recommender = shop.create(hyperparameters=SMALL, publication=Publication(search="hnsw", index_users=True))
    for _ in range(3):
        shop.retrain()
    questions = [*WITHOUT_PEOPLE[:2], *WITH_PEOPLE[:6], "SELECT * FROM retail.item_vectors ORDER BY item_id"]
    with shop.connect() as connection:
        readers.grant_reader(connection, recommender, "application", people=True)
        expected = [rows(connection, question) for question in questions]
        last = value(connection, "SELECT max(generation) FROM recstore.generations")
        comments = value(connection, "SELECT obj_description('retail.item_vectors'::regclass)")
    dump, contents = tmp_path / "dump", tmp_path / "contents"
    tool("pg_dump", f"--dbname={shop.url}", "--format=custom", f"--file={dump}")
    lines = tool("pg_restore", "--list", str(dump)).splitlines()
    contents.write_text("\n".join(line for line in lines if "EXTENSION" not in line))  # there already, and not ours

    with database_from(server, empty_template) as restored:
        tool(
            "pg_restore",
            f"--dbname={restored.url}",
            "--no-owner",
            f"--use-list={contents}",
            "--exit-on-error",
            str(dump),
        )
        with restored.connect() as fresh:
            assert [rows(fresh, question) for question in questions] == expected
            assert value(fresh, "SELECT obj_description('retail.item_vectors'::regclass)") == comments
        with restored.connect("application") as reader:
            assert rows(reader, "SELECT * FROM retail.similar_items(1, 3)")
        with restored.connect() as fresh:
            assert schema.upgrade(fresh, restored.url, restored.settings) == []
            schema.check(restored.url)
            read_factors(fresh)
        outcome = restored.retrain()
        assert outcome.live
        assert outcome.generation >= last
        assert not outcome.warnings
        assert jobs.prune(restored.url, restored.settings, "retail", keep=1)["pruned"]
        with restored.connect() as fresh:
            states = column(
                fresh,
                "SELECT state FROM recstore.generations WHERE state NOT IN ('pruned', 'next') ORDER BY generation",
            )
            assert states == ["live"]
            assert len(rows(fresh, "SELECT * FROM retail.recommend(1, 10)")) == 10
            assert registry.drop(fresh, restored.settings, registry.get(fresh, "retail")) == []
