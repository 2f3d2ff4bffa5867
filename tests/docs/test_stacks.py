"""The integrations of examples/stacks: each recommends, filters by a query of its own, takes a basket and a new user.

Each is skipped where its runtime is missing: `pip install fastapi httpx flask django`; `npm install pg` in examples/stacks;
the Debian packages ruby-activerecord and ruby-pg; libpostgresql-jdbc-java, or the driver that CLASSPATH names.
"""

import asyncio
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from conftest import Database

from recstore import registry
from recstore.operations import readers

STACKS = Path(__file__).parents[2] / "examples/stacks"
REQUESTS = {
    "recommend": "/recommend/42",
    "search": "/search/42?words=1",
    "basket": "/basket?item=6&item=9",
    "view": "/view/990001/6",
}
DRIVER = os.environ.get("CLASSPATH", "/usr/share/java/postgresql.jar")
Rows = list[dict[str, Any]]


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"pip install {package}")


@pytest.fixture
def granted(trained: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """The small shop, whose application has the grants of the README."""
    with trained.connect() as connection:
        readers.grant_reader(connection, registry.get(connection, "retail"), "application", people=True)
    monkeypatch.setenv("DATABASE_URL", trained.url_of("application"))
    monkeypatch.syspath_prepend(STACKS.parents[1])
    return trained


def check(answers: dict[str, Rows]) -> None:
    assert [len(answers[name]) for name in REQUESTS] == [5] * 4
    for rows in answers.values():
        assert all(row["title"] == f"product {row['item_id']}" for row in rows)
        assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert all("1" in row["title"] for row in answers["search"])
    assert not {6, 9} & {row["item_id"] for row in answers["basket"]}
    assert {row["reason"] for row in answers["view"]} == {"fold_in"}


def stored(database: Database) -> int:
    with database.connect("application") as connection:
        return connection.execute("SELECT FROM shop.views WHERE user_id = 990001").rowcount


@needs("fastapi")
@pytest.mark.filterwarnings("default")
def test_fastapi(granted: Database) -> None:
    from fastapi.testclient import TestClient

    with TestClient(importlib.import_module("examples.stacks.fastapi_app").app) as client:
        check({name: (client.post if name == "view" else client.get)(url).json() for name, url in REQUESTS.items()})
    assert stored(granted) == 1


@needs("flask")
@pytest.mark.filterwarnings("default")
def test_flask(granted: Database) -> None:
    client = importlib.import_module("examples.stacks.flask_app").app.test_client()
    check({name: (client.post if name == "view" else client.get)(url).get_json() for name, url in REQUESTS.items()})
    assert stored(granted) == 1


DJANGO = """
import json, sys
from examples.stacks import django_app
from django.test import Client
from django.test.utils import setup_test_environment
setup_test_environment()
client = Client()
print(json.dumps({name: client.get(url).json() for name, url in json.loads(sys.argv[1]).items()}))
print(json.dumps([str(found) for found in django_app.doctor()]))
request = type("Request", (), {"GET": {}, "user": None})()
rows = django_app.PopularityAdmin(django_app.Popularity, django_app.admin.site).get_queryset(request)[:3]
print(json.dumps([[row.users, row.product.title] for row in rows]))
"""


@needs("django")
def test_django(granted: Database) -> None:
    """In a process of its own, since Django has one configuration for each."""
    command = [sys.executable, "-c", DJANGO, json.dumps(REQUESTS)]
    done = subprocess.run(command, cwd=STACKS.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers, findings, popularity = map(json.loads, done.stdout.splitlines())
    check(answers)
    assert stored(granted) == 1
    assert all(": (recstore." in finding for finding in findings)
    assert [users for users, _ in popularity] == sorted((users for users, _ in popularity), reverse=True)


@pytest.fixture
def tcp(granted: Database) -> Iterator[str]:
    """HOST:PORT/DATABASE: a port that leads to the server's socket, for drivers that speak TCP alone."""
    socket_file = f"{granted.server.sockets}/.s.PGSQL.5432"

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while some := await source.read(65536):
                target.write(some)
            target.close()

        there = await asyncio.open_unix_connection(socket_file)
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(forward, "127.0.0.1", 0))
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}/{granted.name}"
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def check_printed(command: list[str], **environment: str) -> None:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check({name: rows for line in done.stdout.splitlines() for name, rows in json.loads(line).items()})


@pytest.mark.skipif(
    shutil.which("node") is None or not (STACKS / "node_modules/pg").exists(),
    reason="npm install pg, in examples/stacks",
)
def test_node(granted: Database, tcp: str) -> None:
    check_printed(["node", str(STACKS / "node_pg.mjs"), "42"], DATABASE_URL=f"postgresql://application@{tcp}")
    assert stored(granted) == 0


def test_active_record(granted: Database, tcp: str) -> None:
    packages = 'require "active_record"; require "pg"'
    if shutil.which("ruby") is None or subprocess.run(["ruby", "-e", packages], capture_output=True).returncode:
        pytest.skip("apt install ruby-activerecord ruby-pg, or gem install activerecord pg")
    url = f"postgresql://application@{tcp}"
    check_printed(["ruby", str(STACKS / "active_record.rb"), "42"], DATABASE_URL=url)
    assert stored(granted) == 0


@pytest.mark.skipif(
    shutil.which("java") is None or not Path(DRIVER).exists(),
    reason="apt install libpostgresql-jdbc-java, or CLASSPATH=..",
)
def test_jdbc(granted: Database, tcp: str) -> None:
    check_printed(
        ["java", "-cp", DRIVER, str(STACKS / "Jdbc.java"), "42"], JDBC_URL=f"jdbc:postgresql://{tcp}?user=application"
    )
    assert stored(granted) == 0
