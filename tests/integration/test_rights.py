"""What readers get, what row-level security hides from them, and whose a restored database is."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psycopg
import pytest
from conftest import VERSION, Command, Database, database_from, superuser

from recstore.embedded import Server
from recstore.embedded.programs import tool_path
from recstore.source import selects

CREATE = "create retail --table shop.views --item product_id --value view_count --factors 8 --iterations 2 --yes"


@pytest.fixture
def clerk(shop: Database) -> Iterator[str]:
    """A role that may read the source."""
    with superuser(shop.server, shop.name) as connection:
        connection.execute(
            "CREATE ROLE clerk LOGIN; GRANT USAGE ON SCHEMA shop TO clerk; GRANT SELECT ON shop.views TO clerk"
        )
    yield "clerk"
    with superuser(shop.server, shop.name) as connection:
        connection.execute("DROP OWNED BY clerk; DROP ROLE clerk")


@pytest.fixture
def limited(recstore: Command, shop: Database, clerk: str) -> str:
    """That role, to which policies of the source show a few items, and a live generation."""
    recstore(CREATE)
    recstore("retrain retail")
    shop.connect("application").execute(
        "ALTER TABLE shop.views ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON shop.views TO clerk USING (product_id < 20);"
        " CREATE POLICY everything ON shop.views TO worker USING (true)"
    )
    return clerk


REFUSED = "Nothing was changed. Row-level security of shop.views hides rows from clerk"


def test_published_seen_items_show_no_role_what_policies_hide(recstore: Command, shop: Database, limited: str) -> None:
    def found(check: str) -> list[tuple[str, list[str]]]:
        findings = recstore("doctor retail --json").json["findings"]
        return [(f["level"], f["remedies"]) for f in findings if f["check"] == check]

    assert "row-level security" not in recstore(f"grant retail {limited}").out
    granted = recstore(f"grant retail {limited} --people").out
    assert "-- row-level security of shop.views: recommend() excludes only the seen items that clerk may" in granted
    assert found("reader-row-security") == [("note", [])]
    published = "alter retail --seen published"
    for dry in "", " --dry-run":
        recstore(published + dry).expect(1, REFUSED)
    everything = "POLICY everything ON shop.views TO worker"
    shop.connect("application").execute(f"ALTER {everything}, clerk")  # type: ignore[arg-type]
    recstore(published).expect(0)
    recstore("retrain retail --force").expect(0)
    recstore(f"grant retail {limited} --people").expect(0)
    assert found("published-seen") == [("ok", [])]
    shop.connect("application").execute(f"ALTER {everything}")  # type: ignore[arg-type]
    recstore(f"grant retail {limited} --people").expect(1, REFUSED)
    recstore(f"grant retail {limited} --people --dry-run").expect(1, REFUSED)
    remedies = ["recstore alter retail --seen live", "recstore retrain retail"]
    assert found("published-seen") == [("error", remedies)]
    assert "published-seen" in recstore("retrain retail --force").err
    for remedy in remedies:
        recstore(remedy.removeprefix("recstore ")).expect(0)
    assert found("published-seen") == [("ok", [])]
    recstore(f"grant retail {limited} --people").expect(0)


def test_published_seen_items_show_none_to_the_members_of_a_role(
    recstore: Command, shop: Database, limited: str
) -> None:
    administrator = shop.connect("postgres")
    administrator.execute("CREATE ROLE clerks BYPASSRLS; GRANT clerks TO clerk")  # which members do not inherit
    try:
        recstore("alter retail --seen published").expect(0)
        recstore("retrain retail --force").expect(0)
        recstore("grant retail clerks --people").expect(1, REFUSED)
        recstore(f"grant retail {limited}").expect(0)
        administrator.execute("REVOKE clerks FROM clerk")
        recstore("grant retail clerks --people").expect(0)
    finally:
        administrator.execute("DROP OWNED BY clerks; DROP ROLE clerks")


def test_published_seen_items_need_no_grant_on_the_source(recstore: Command, shop: Database, clerk: str) -> None:
    shop.connect("application").execute("REVOKE SELECT ON shop.views FROM clerk")
    recstore(CREATE)
    recstore("retrain retail")
    recstore("alter retail --seen published")
    asked = "GRANT SELECT ON shop.views TO clerk"
    assert (
        asked in recstore(f"grant retail {clerk} --people --dry-run").out
    )  # the live generation still reads the source
    assert asked in recstore("doctor retail --reader clerk").out
    recstore("retrain retail")
    for command in "grant retail clerk --people --dry-run", "grant retail clerk --people", "doctor retail":
        assert asked not in recstore(command).out, command
    assert len(shop.connect(clerk).execute("SELECT FROM retail.recommend(1, 3)").fetchall()) == 3


def test_what_candidates_call_and_read_through_views_is_granted_too(
    recstore: Command, shop: Database, clerk: str
) -> None:
    with superuser(shop.server, shop.name) as connection:
        connection.execute(
            "CREATE FUNCTION shop.on_sale(id integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';"
            " CREATE FUNCTION shop.below(integer, integer) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN $1 < $2; END';"
            " CREATE OPERATOR shop.<<< (FUNCTION = shop.below, LEFTARG = integer, RIGHTARG = integer);"
            " CREATE VIEW shop.shown AS SELECT product_id FROM shop.products WHERE shop.on_sale(product_id);"
            " CREATE VIEW shop.offered WITH (security_invoker) AS"
            "   SELECT s.product_id FROM shop.shown s JOIN shop.products p USING (product_id) WHERE p.visible;"
            " REVOKE ALL ON FUNCTION shop.on_sale, shop.below FROM PUBLIC;"
            " GRANT ALL ON FUNCTION shop.on_sale, shop.below TO worker; GRANT SELECT ON shop.shown, shop.offered TO worker"
        )
    recstore(CREATE)
    recstore("retrain retail")
    recstore(f"grant retail {clerk}")
    query = "SELECT product_id FROM shop.offered WHERE product_id OPERATOR(shop.<<<) 100"
    recstore("alter retail --candidates", query).expect(1, "Nothing was changed", "shop.on_sale(integer) TO clerk;")
    recstore("alter retail --yes --candidates", query).expect(0)
    missing = {
        "GRANT SELECT ON shop.offered TO clerk;",
        "GRANT SELECT ON shop.products TO clerk;",
        "GRANT SELECT ON shop.shown TO clerk;",
        "GRANT EXECUTE ON FUNCTION shop.below(integer,integer) TO clerk;",
        "GRANT EXECUTE ON FUNCTION shop.on_sale(integer) TO clerk;",
    }
    still = [line.partition(": ")[2] for line in recstore(f"grant retail {clerk}").out.splitlines() if "still" in line]
    assert set(still) == missing
    findings = recstore("doctor retail --json").json["findings"]
    assert {r for f in findings if f["check"] == "reader-source" for r in f["remedies"]} == missing
    for one in sorted(missing):  # every one of them is needed
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            shop.connect(clerk).execute("SELECT FROM retail.similar_items(1, 3)")
        shop.connect("postgres").execute(one)  # type: ignore[arg-type]
    assert shop.connect(clerk).execute("SELECT FROM retail.similar_items(1, 3)").fetchall()
    assert "still" not in recstore(f"grant retail {clerk}").out


def test_a_rehearsed_grant_asks_for_nothing_of_recstore_s_own(recstore: Command, clerk: str) -> None:
    recstore(CREATE)
    recstore("retrain retail")
    rehearsed = recstore(f"grant retail {clerk} --people --dry-run").out
    assert "--" not in rehearsed, rehearsed
    assert rehearsed == recstore(f"grant retail {clerk} --people").out
    assert recstore("grant retail clerk --people --dry-run").out == rehearsed


def test_grant_covers_the_tables_of_lists(recstore: Command, shop: Database, clerk: str) -> None:
    with superuser(shop.server, shop.name) as connection:
        connection.execute(
            "CREATE SCHEMA made AUTHORIZATION worker; CREATE SCHEMA closed; GRANT ALL ON SCHEMA closed TO worker"
        )
    recstore(CREATE + " --similar-into made.alike --recommend-into closed.lists")
    recstore("retrain retail")
    before = recstore(f"grant retail {clerk} --people").out
    assert "GRANT USAGE ON SCHEMA made TO clerk;" in before
    assert "-- once the lists are written: GRANT SELECT ON made.alike TO clerk;" in before
    assert "-- still to be run by the owner of the schema of lists: GRANT USAGE ON SCHEMA closed TO clerk;" in before
    recstore("lists retail")
    assert "closed" not in recstore(f"grant retail {clerk}").out
    assert "\nGRANT SELECT ON closed.lists TO clerk;" in recstore(f"grant retail {clerk} --people").out
    shop.connect("postgres").execute("GRANT USAGE ON SCHEMA closed TO clerk")
    recstore("lists retail")  # the new tables keep the grants
    reader = shop.connect(clerk)
    for table in "made.alike", "closed.lists":
        assert reader.execute(f"SELECT FROM {table} LIMIT 1").fetchall()  # type: ignore[arg-type]
    assert "lists" not in recstore(f"grant retail {clerk} --people").out


def test_a_database_restored_without_owners_is_repaired_by_doctor_s_statement(
    recstore: Command, shop: Database, server: Server, tmp_path: Path
) -> None:
    recstore(CREATE + " --seen published")
    recstore("retrain retail")
    recstore("grant retail application --people")
    dump = tmp_path / "dump"
    tool("pg_dump", f"--dbname={shop.url_of('postgres')}", "--format=custom", f"--file={dump}")
    with database_from(server, "template0") as restored:
        tool("pg_restore", f"--dbname={restored.url_of('postgres')}", "--no-owner", "--exit-on-error", str(dump))
        refused = recstore("retrain retail", url=restored.url)
        assert (refused.code, "recstore doctor" in refused.err) == (1, True), refused
        (remedy,) = owner_errors(recstore, restored)
        with superuser(server, restored.name) as connection:
            connection.execute(remedy)  # type: ignore[call-overload]
        assert owner_errors(recstore, restored) == []
        for command in "db check", "retrain retail --force", "prune retail --keep 1 --yes", "doctor":
            assert recstore(command, url=restored.url).code == 0, command
        with restored.connect("application") as reader:
            assert len(reader.execute("SELECT FROM retail.recommend(1, 5)").fetchall()) == 5
        with superuser(server, restored.name) as connection:  # as after an upgrade by another role
            connection.execute("ALTER TABLE retail._items OWNER TO postgres")
            (remedy,) = owner_errors(recstore, restored)
            connection.execute(remedy)  # type: ignore[call-overload]
        assert owner_errors(recstore, restored) == []
        assert recstore("drop retail --yes", url=restored.url).code == 0


def test_a_plain_role_restores_a_dump_where_pgvector_is_installed(
    recstore: Command, shop: Database, server: Server, tmp_path: Path
) -> None:
    recstore(CREATE)
    recstore("retrain retail")
    recstore("grant retail application --people")
    dump = tmp_path / "dump"
    tool("pg_dump", f"--dbname={shop.url_of('postgres')}", "--format=custom", f"--file={dump}")
    with database_from(server, "template0") as restored:
        with superuser(server, restored.name) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute(f"GRANT CREATE ON DATABASE {restored.name} TO worker")  # type: ignore[call-overload]
        listed, kept = tool("pg_restore", "--list", str(dump)), tmp_path / "kept"
        kept.write_text("".join(line + "\n" for line in listed.splitlines() if " EXTENSION " not in line))
        options = ("--no-owner", f"--use-list={kept}", "--exit-on-error")
        tool("pg_restore", f"--dbname={restored.url}", *options, str(dump))
        findings = recstore("doctor --json", url=restored.url).json["findings"]
        (lost,) = [f for f in findings if f["level"] in ("error", "warning")]
        assert lost["check"] == "reader-source"  # the application's tables are now the worker's
        for remedy in lost["remedies"]:
            restored.connect("worker").execute(remedy)
        for command in "db check", "doctor", "recommend retail 1", "retrain retail --force":
            assert recstore(command, url=restored.url).code == 0, command


def owner_errors(recstore: Command, database: Database) -> list[str]:
    """Return the remedies of the errors of the check `owner`."""
    findings = recstore("doctor --json", url=database.url).json["findings"]
    return [r for f in findings if (f["check"], f["level"]) == ("owner", "error") for r in f["remedies"]]


def tool(name: str, *arguments: str) -> str:
    """Run pg_dump or pg_restore, and return its output."""
    command = [tool_path(VERSION, name), *arguments]
    return subprocess.run(command, check=True, env={"PATH": os.defpath}, stdout=subprocess.PIPE, text=True).stdout


MESSAGES = {
    "permission denied for table views": "GRANT SELECT ON shop.views",
    "permission denied for schema shop": None,  # which this role may use
    "permission denied for schema closed": "GRANT USAGE ON SCHEMA closed",
    "keine Berechtigung für Tabelle views": "GRANT SELECT ON shop.views",
    "droit refusé pour la vue matérialisée Les ventes": 'GRANT SELECT ON shop."Les ventes"',
    "テーブルviewsへのアクセスが拒否されました": "GRANT SELECT ON shop.views",
    "keine Berechtigung für Funktion reviews": None,
    "keine Berechtigung für Tabelle twice": None,
}
"""Message of an InsufficientPrivilege -> the GRANT that it asks for."""


def test_a_missing_grant_is_found_in_a_message_of_any_language(shop: Database) -> None:
    with superuser(shop.server, shop.name) as connection:
        connection.execute(
            'REVOKE SELECT ON shop.views FROM worker; CREATE SCHEMA closed; CREATE TABLE shop."Les ventes" ();'
            " CREATE TABLE shop.twice (); CREATE TABLE public.twice ()"
        )
    with shop.connect() as connection:
        for message, grant in MESSAGES.items():
            refused = SimpleNamespace(diag=SimpleNamespace(message_primary=message))
            assert selects.missing_grant(connection, cast("psycopg.Error", refused)) == grant, message
