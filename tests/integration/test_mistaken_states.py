"""What the world gets wrong: servers that are not there, tables, views and rights that are gone, other versions, full disks, runs
and locks in the way. Each is one sentence that says what to do; what is live serves on, and all is well once it is mended."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest
from conftest import Database, drop_database, superuser
from support import FREE_DISK, FULL_DISK
from support_mistakes import Shop, sentence_of, trained_shop

from recstore import registry, runs
from recstore.background.messages import queue_lengths
from recstore.definition import Titles
from recstore.errors import BrokerUnreachable
from recstore.sql.schema_revision import head

VERSION = "UPDATE recstore_private.alembic_version SET version_num = "
OBJECTS = "UPDATE recstore_private.recommenders SET objects_version = objects_version"


@dataclass(frozen=True)
class State:
    """Commands, each with its exit code and what is said while something is `wrong`; it is `mended` in the same session, `by`
    the application, who owns the tables, or a superuser."""

    says: dict[str, tuple[int, str]]
    wrong: str
    mended: str = "SELECT"
    by: str = "application"
    environment: dict[str, str] = field(default_factory=dict)


STATES = {
    "the source is dropped": State(
        {
            "retrain clicks": (2, "The source cannot be read: there is no table shop.clicks that this role can see."),
            "db check": (1, "recstore db upgrade"),
        },
        "DROP TABLE shop.clicks CASCADE",
        "CREATE TABLE shop.clicks AS TABLE shop.views; GRANT SELECT ON shop.clicks TO worker",
    ),
    "the source is renamed": State(
        {"alter clicks --alpha 3": (2, "The source cannot be read: there is no table shop.clicks")},
        "ALTER TABLE shop.clicks RENAME TO gone",
        "ALTER TABLE shop.gone RENAME TO clicks",
    ),
    "a column of the source is renamed": State(
        {"alter clicks --alpha 3": (2, "shop.clicks has no column 'view_count'; its columns are n, product_id, user_id.")},
        "ALTER TABLE shop.clicks RENAME view_count TO n",
        "ALTER TABLE shop.clicks RENAME n TO view_count",
    ),
    "no right to read the source": State(
        {
            "retrain clicks": (1, "run: GRANT SELECT ON shop.clicks TO worker; The live generation of 'clicks' stays."),
            "evaluate clicks": (1, "The role worker is not allowed to do this: permission denied for table clicks."),
            "create fresh --table shop.clicks --item product_id": (
                1,
                'table clicks. Have the owner run: GRANT SELECT ON shop.clicks TO "worker";',
            ),
        },
        "REVOKE SELECT ON shop.clicks FROM worker",
        "GRANT SELECT ON shop.clicks TO worker",
    ),
    "no right to use the schema": State(
        {"create fresh --table shop.clicks --item product_id": (1, "schema shop. Have the owner run: GRANT USAGE ON SCHEMA")},
        "REVOKE USAGE ON SCHEMA shop FROM worker",
        "GRANT USAGE ON SCHEMA shop TO worker",
    ),
    "row level security hides the source": State(
        {"retrain clicks": (1, "The source of 'clicks' returned no usable rows (0 read")},
        "ALTER TABLE shop.clicks ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE shop.clicks DISABLE ROW LEVEL SECURITY",
    ),
    "most of the source is gone": State(
        {"retrain clicks": (5, "has lost most of its rows: 20 users instead of 240 (-92%)")},
        "DELETE FROM shop.clicks WHERE user_id > 20",
        "TRUNCATE shop.clicks; INSERT INTO shop.clicks TABLE shop.views",
    ),
    "the source is locked": State(
        {"retrain clicks": (1, "took longer than 0.5 s")},
        "BEGIN; LOCK TABLE shop.clicks",
        "ROLLBACK",
        environment={"RECSTORE_SOURCE_TIMEOUT": "0.5"},
    ),
    "the titles are gone": State(
        {"popular clicks": (1, "recstore alter clicks --titles none")},
        "ALTER TABLE shop.products RENAME TO gone",
        "ALTER TABLE shop.gone RENAME TO products",
    ),
    "the titles may not be read": State(
        {"similar clicks 1": (1, "permission denied for table products")},
        "REVOKE SELECT ON shop.products FROM worker",
        "GRANT SELECT ON shop.products TO worker",
    ),
    "a view of recstore is gone": State(
        {
            "recommend retail 7": (1, "recstore db upgrade"),
            "db check": (1, "recstore db upgrade"),
        },
        "DROP VIEW retail.interactions",
        by="postgres",
    ),
    "something depends on it": State(
        {"drop clicks --yes": (1, "depend on it: view shop.uses. Drop or change those first, or add --cascade")},
        "CREATE VIEW shop.uses AS SELECT * FROM clicks.item_vectors",
        "DROP VIEW shop.uses",
        by="postgres",
    ),
    "another session holds a lock": State(
        {"drop clicks --yes": (1, 'could not get its lock in 1 attempts; "clicks"."item_vectors" is locked (pids')},
        "BEGIN; TABLE clicks.item_vectors LIMIT 1",
        "ROLLBACK",
        by="postgres",
        environment={"RECSTORE_LOCK_ATTEMPTS": "1", "RECSTORE_LOCK_TIMEOUT": "0.01"},
    ),
    "everything is published": State(
        {"create fresh --table shop.views --item product_id": (2, "everything is FOR ALL TABLES")},
        "CREATE PUBLICATION everything FOR ALL TABLES",
        "DROP PUBLICATION everything",
        by="postgres",
    ),
    "the disk is full": State(
        {"retrain clicks": (1, "No space left on device")},
        FULL_DISK,
        FREE_DISK,
        by="postgres",
    ),
    "an older schema": State(
        dict.fromkeys(("list", "retrain clicks", "status"), (1, "The database is at revision 0001; this recstore requires ")),
        VERSION + "'0001'",
        VERSION + f"'{head()}'",
        by="postgres",
    ),
    "a newer schema": State(
        dict.fromkeys(("list", "retrain clicks", "db upgrade"), (1, "Install the recstore that upgraded it, or a newer one.")),
        VERSION + "'9999'",
        VERSION + f"'{head()}'",
        by="postgres",
    ),
    "objects of another version": State(
        dict.fromkeys(("retrain clicks", "reindex clicks", "recommend-all clicks --into x.csv"), (1, "this recstore creates")),
        OBJECTS + " - 1",
        OBJECTS + " + 1",
        by="postgres",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def mistaken(server: Any, shop_template: str) -> Iterator[Shop]:
    titles = Titles(table="shop.products", item="product_id", title="title")
    with trained_shop(server, shop_template, titles=titles) as shop:
        yield shop


@pytest.fixture(autouse=True)
def unharmed(mistaken: Shop) -> Iterator[None]:
    yield
    mistaken.assert_unharmed()


@pytest.mark.parametrize("what", STATES)
def test_states(what: str, mistaken: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    state = STATES[what]
    for name, value in state.environment.items():
        monkeypatch.setenv(name, value)
    with mistaken.database.connect(state.by) as connection:
        connection.execute(state.wrong)
        try:
            for line, (code, said) in state.says.items():
                answer = mistaken.run(capsys, *line.split())
                assert said in sentence_of(answer)
                assert answer.code == code
                if "interactions" not in state.wrong:
                    mistaken.assert_unharmed()
        finally:
            connection.execute(state.mended)
    assert mistaken.run(capsys, "db", "upgrade").code == 0


def test_connections(mistaken: Shop, capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    database = mistaken.database
    mistaken.administer(
        "CREATE ROLE resting NOLOGIN",
        "CREATE ROLE crowded LOGIN CONNECTION LIMIT 0",
        "CREATE ROLE locked LOGIN PASSWORD 's3cret'",
    )
    hba = database.server.data / "pg_hba.conf"
    before = hba.read_text()
    reload = "SELECT pg_reload_conf()"
    sockets = quote(str(database.server.sockets), safe="")
    with closing(socket.create_server(("127.0.0.1", 0))) as plain:
        threading.Thread(target=_refuse_tls, args=[plain], daemon=True).start()
        hba.write_text(f"local {database.name} locked scram-sha-256\nlocal {database.name} barred reject\n{before}")
        mistaken.administer(reload)
        try:
            urls = {
                database.url_of("nobody"): 'role "nobody" does not exist',
                database.url_of("resting"): 'role "resting" is not permitted to log in',
                database.url_of("crowded"): 'too many connections for role "crowded"',
                database.url_of("locked"): "no password supplied",
                database.url_of("locked:wrong"): 'password authentication failed for user "locked"',
                database.url_of("barred"): "pg_hba.conf rejects connection",
                database.url.replace(database.name, "nix"): 'database "nix" does not exist',
                f"postgresql://worker@/x?host={tmp_path}": "No such file or directory",
                "postgresql://worker@localhost:1/x": "Connection refused",
                "postgresql://worker@localhost:99999/x": "invalid port number",
                "postgresql://worker@/x?nix=1": 'invalid URI query parameter: "nix"',
                f"postgresql://worker@/{database.name}?host={sockets}&sslmode=nix": "invalid sslmode value",
                f"postgresql://worker@127.0.0.1:{plain.getsockname()[1]}/x?sslmode=require": "server does not support SSL",
                f"postgresql://worker@/{database.name}?host={sockets}&options=-cnix%3D1": "unrecognized configuration parameter",
            }
            for url, said in urls.items():
                answer = mistaken.run(capsys, "list", url=url)
                sentence = sentence_of(answer)
                assert (answer.code, said in sentence) == (3, True), answer.err
                assert sentence.startswith("The database could not be reached: ")
                assert "Check RECSTORE_DATABASE_URL (or --database)" in sentence
        finally:
            hba.write_text(before)
            mistaken.administer(reload, "DROP ROLE resting", "DROP ROLE crowded", "DROP ROLE locked")


def _refuse_tls(listening: socket.socket) -> None:
    """As a PostgreSQL without TLS does."""
    client, _ = listening.accept()
    with client:
        client.recv(8)
        client.sendall(b"N")


def test_sessions_that_may_not_write(mistaken: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """As on a standby; what a role or a database sets is undone, what the URL says holds."""
    url = mistaken.database.url + "&options=-cdefault_transaction_read_only%3Don"
    lines = "retrain clicks; alter clicks --alpha 3; drop clicks --yes; rollback clicks --to 1; prune clicks"
    for line in lines.split("; "):
        answer = mistaken.run(capsys, *line.split(), url=url)
        assert answer.code in (1, 2), line
        assert "read-only transaction" in sentence_of(answer) or "does not exist" in answer.err
    assert mistaken.run(capsys, "recommend", "clicks", "7", url=url).code == 0


def test_roles_without_rights(mistaken: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    url = mistaken.database.url_of("application")
    lines = "list; show retail; status; retrain retail; request retrain retail; recommend retail 7; drop retail --yes"
    for line in lines.split("; "):
        answer = mistaken.run(capsys, *line.split(), url=url)
        assert "The role application is not allowed to do this: permission denied for" in sentence_of(answer)
        assert answer.code == 1


def test_another_run_in_progress(mistaken: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    with mistaken.database.connect() as connection:
        runs.take_lock(connection, registry.get(connection, "clicks"))
        for line in ("retrain clicks", "drop clicks --yes", "prune clicks", "alter clicks --factors 100 --resize"):
            answer = mistaken.run(capsys, *line.split())
            assert answer.code == 1
            assert "Another run of 'clicks' is in progress (test, server process" in sentence_of(answer)


def test_requests_of_what_is_dropped_are_printed(mistaken: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    mistaken.database.create("short")
    mistaken.run(capsys, "request", "retrain", "short")
    assert mistaken.run(capsys, "drop", "short", "--yes").out.endswith("request 1\n")


def test_a_failure_is_shown_while_the_next_run_works(mistaken: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    add = "INSERT INTO recstore_private.runs (recommender_id, job, state, error, finished_at, pid, host) SELECT id, 'retrain',"
    mistaken.administer(
        f"{add} 'failed', 'It was the lark.', now(), 1, 'lathe' FROM recstore_private.recommenders WHERE name = 'books'",
        f"{add} 'running', NULL, NULL, 1, 'lathe' FROM recstore_private.recommenders WHERE name = 'books'",
    )
    with mistaken.database.connect() as connection:
        runs.take_lock(connection, registry.get(connection, "books"))
        shown = mistaken.run(capsys, "status", "books").out
    assert "  now           retrain for " in shown
    assert "  before        failed " in shown
    assert "  error         It was the lark.\n" in shown


def test_before_the_first_upgrade(mistaken: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    server = mistaken.database.server
    bare = Database(server, "bare")
    with superuser(server) as connection:
        connection.execute("CREATE DATABASE bare TEMPLATE template0")
    with superuser(server, "bare") as connection:
        lines = "list; status; retrain x; recommend x 1; create x --table y; health; tune x; drop x --yes"
        for line in lines.split("; "):
            answer = mistaken.run(capsys, *line.split(), url=bare.url)
            assert answer.code == 1
            assert sentence_of(answer) == "This database has no recstore schema yet. Run: recstore db upgrade"
        steps = {
            "": "permission denied to create extension \"vector\"). Ask an administrator to run: CREATE EXTENSION vector;",
            "CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions": 'GRANT USAGE ON SCHEMA "extensions" TO',
            "GRANT USAGE ON SCHEMA extensions TO worker": "permission denied for database bare",
        }  # fmt: skip
        for step, said in steps.items():
            connection.execute(step or "SELECT")
            answer = mistaken.run(capsys, "db", "upgrade", url=bare.url)
            assert said in sentence_of(answer)
            assert answer.code == 1
    drop_database(bare)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"-NOAUTH Authentication required.\r\n", "Authentication required"),
        (b"-WRONGPASS invalid username-password pair\r\n", "password"),
        (b"HTTP/1.1 400 Bad Request\r\n", "not Redis"),
        (None, "Connection refused (localhost:"),
    ],
)
def test_brokers(reply: bytes | None, said: str) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]

    def serve() -> None:
        client, _ = listening.accept()
        with client:
            while client.recv(1000):
                client.sendall(reply or b"")

    if reply:
        threading.Thread(target=serve, daemon=True).start()
    else:
        listening.close()
    with pytest.raises(BrokerUnreachable, match="Check RECSTORE_BROKER_URL") as caught:
        queue_lengths(f"redis://localhost:{port}/0")
    listening.close()
    assert said in caught.value.message
