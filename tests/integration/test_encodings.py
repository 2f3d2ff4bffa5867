"""Databases in other encodings than UTF-8: every command works, or says in one sentence why not."""

from collections.abc import Callable, Iterator

import pytest
from conftest import Command, Database, administration, drop_database, superuser
from support_sql import column

from recstore.embedded import Server

WORDS = {
    "LATIN1": ("café", "Zoë", "ÿ", "naïve"),
    "EUC_JP": ("東京", "ｶﾅ", "あ", "naive"),
    "SQL_ASCII": ("café", "東京", "ÿ", "naive"),
}
COMMANDS = (
    "db upgrade",
    "create retail --table shop.names --value n --titles shop.titles:item_id:title --factors 4 --iterations 2 --yes",
    "retrain retail",
    "retrain retail --force",
    "similar retail {word}-3",
    "recommend retail {word}-1 --k 3",
    "recommend-all retail --into shop.lists --k 3 --yes",
    "evaluate retail --split user",
    "reindex retail",
    "rollback retail",
    "status",
    "logs",
    "doctor retail",
)

FILL = """
    INSERT INTO shop.names SELECT w[1 + mod(u, 4)] || '-' || u, w[1 + mod(n, 4)] || '-' || n, 1 + mod(n, 3)
    FROM (
        SELECT %s::text[] AS w, u, mod(u * 7 + i * i, 30) AS n
        FROM generate_series(1, 100) u, generate_series(1, 8) i
    ) s
"""

Make = Callable[[str], Database]


@pytest.fixture
def in_encoding(server: Server) -> Iterator[Make]:
    """Make a database of an encoding, with users and items that are named in its own letters."""
    made: list[Database] = []

    def make(encoding: str) -> Database:
        database = Database(server, f"in_{encoding.lower()}")
        made.append(database)
        administration(server).execute(
            f"CREATE DATABASE {database.name} ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
        )
        with superuser(server, database.name) as connection:
            connection.execute("SET client_encoding = 'UTF8'")
            connection.execute(
                f"CREATE EXTENSION vector; GRANT CREATE ON DATABASE {database.name} TO worker, application;"
                "CREATE SCHEMA shop; GRANT ALL ON SCHEMA shop TO worker;"
                "CREATE TABLE shop.names (user_id text, item_id text, n int);"
                "CREATE TABLE shop.titles (item_id text PRIMARY KEY, title text);"
                "GRANT SELECT ON ALL TABLES IN SCHEMA shop TO worker"
            )
            connection.execute(FILL, [list(WORDS[encoding])])
            connection.execute("INSERT INTO shop.titles SELECT DISTINCT item_id, upper(item_id) FROM shop.names")
        return database

    yield make
    for database in made:
        drop_database(database)


@pytest.mark.parametrize("encoding", WORDS)
def test_ids_and_titles_in_the_letters_of_another_encoding(recstore: Command, in_encoding: Make, encoding: str) -> None:
    database = in_encoding(encoding)
    word = WORDS[encoding][3]
    for command in COMMANDS:
        answer = recstore(command.format(word=word), url=database.url)
        assert answer.code == 0 or "doctor" in command, (command, answer.out, answer.err)
    names = set(column(database.connect(), "SELECT DISTINCT item_id FROM shop.names"))
    assert set(column(database.connect(), "SELECT item_id FROM retail.item_vectors")) == names
    query = f"SELECT user_id, item_id, n AS value FROM shop.names WHERE item_id <> '{WORDS[encoding][0]}-4'"
    recstore("create other --factors 4 --iterations 2 --query", query, url=database.url).expect(0)
    recstore("retrain other", url=database.url).expect(0)
    assert WORDS[encoding][0] in recstore("show other", url=database.url).out
    shown = recstore(f"similar retail {word}-3 -k 29", url=database.url).out
    assert [word for word in WORDS[encoding] if word.upper() not in shown and word not in shown] == []


def test_bytes_that_are_no_text(recstore: Command, in_encoding: Make) -> None:
    """SQL_ASCII accepts any bytes."""
    database = in_encoding("SQL_ASCII")
    for command in COMMANDS[:3]:
        recstore(command, url=database.url).expect(0)
    with superuser(database.server, database.name) as connection:
        connection.execute("UPDATE shop.titles SET title = title || E'\\xff'")
        said = recstore("similar retail naive-3", url=database.url).expect(
            1, 'invalid byte sequence for encoding "UTF8": 0xff'
        )
        assert said.err.count("\n") == 1
        connection.execute("UPDATE shop.names SET item_id = item_id || E'\\xe9' WHERE user_id ~ '-1$'")
    words = ('invalid byte sequence for encoding "UTF8": 0xe9', "Exclude or convert", "'retail' stays.")
    for command in ("retrain retail", "evaluate retail"):
        assert " ." not in recstore(command, url=database.url).expect(2, *words).err
    recstore("recommend retail 東京-1 --json", url=database.url).expect(1, "invalid byte sequence")
    recstore("doctor retail", url=database.url)
