"""What the pages of the explorer say, and to whom, by Flask's test client."""

import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from html import unescape

import pytest
from conftest import Database, database_from
from flask.testing import FlaskClient
from psycopg import errors as pg
from support import free_port, look, states, until
from support_explorer import HOSTILE, LONG, RIGHT_TO_LEFT, client_of, executed, lists_of, make_titles, text_of

from recstore import pipeline, registry
from recstore.config import Settings
from recstore.definition import Schedule, Titles
from recstore.embedded import Server
from recstore.errors import InvalidInput
from recstore.explorer.app import check, serve
from recstore.explorer.reading import Pages
from recstore.operations import readers
from recstore.postgres import grants

PAGES = (
    "/",
    "/r/retail",
    "/r/retail/run/1",
    "/r/retail/items",
    "/r/retail/items?q=product+1",
    "/r/retail/item?id=1",
    "/r/retail/user",
    "/r/retail/user?id=1&item=7",
    "/r/retail/basket?item=1&item=7&q=product",
    "/r/retail/compare",
)


@pytest.fixture(scope="module")
def pictured(server: Server, trained_template: str) -> Iterator[Database]:
    with database_from(server, trained_template) as database:
        make_titles(database)
        yield database


@pytest.fixture(scope="module")
def client(pictured: Database) -> FlaskClient:
    return client_of(pictured)


@pytest.mark.parametrize("address", PAGES)
def test_every_page_answers_with_strict_headers_and_no_script_of_its_own(client: FlaskClient, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert not re.findall(r"<script(?! src)|<[^>]*(?: on[a-z]+=| style=|https?://(?!127))", answer.text.lower())


def test_the_sql_below_each_list_returns_that_list(client: FlaskClient, pictured: Database) -> None:
    connection, lists = pictured.connect(), 0
    for address in PAGES:
        for ids, statement in lists_of(client.get(address).text):
            rows = executed(connection, statement)
            assert [str(row["item_id"]) for row in rows][: len(ids)] == ids, statement
            lists += 1
    assert lists == 10


def test_the_lists_of_runs_generations_and_requests_have_their_sql(client: FlaskClient, pictured: Database) -> None:
    page = client.get("/r/retail").text
    statements = [
        s.replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">")
        for s in re.findall(r"<code>(--.*?|SELECT.*?)</code>", page, re.DOTALL)
    ]
    assert len(statements) == 4
    generations, runs, requests, studies = (executed(pictured.connect(), statement) for statement in statements)
    assert [row["state"] for row in generations] == ["previous", "previous", "live", "next"]
    assert [row["run"] for row in runs] == [3, 2, 1]
    assert requests == studies == []


def test_the_sql_of_the_overview_a_run_and_a_comparison_is_theirs(client: FlaskClient, pictured: Database) -> None:
    connection = pictured.connect()
    for address, columns in (
        ("/", {"live_generation": 3, "users": 240}),
        ("/r/retail/run/2", {"run": 2, "state": "succeeded"}),
        ("/r/retail/compare?a=2&b=3", {"users": 200}),
    ):
        statement = re.findall(r"<code>((?:--|SELECT).*?)</code>", client.get(address).text, re.DOTALL)[-1]
        (row,) = executed(connection, unescape(statement))
        assert columns.items() <= row.items()


def test_the_command_serves_until_ctrl_c(shared: Database) -> None:
    port = free_port()
    words = [sys.executable, "-m", "recstore", "--database", shared.url, "explore", "--port", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:

        def served() -> str:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
                return str(answer.read().decode())
            return ""

        assert "generation 1, since" in text_of(until(served))
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)
        assert (process.returncode, said) == (0, f"recstore explores at http://127.0.0.1:{port} until Ctrl-C\n")
    finally:
        process.kill()


def test_a_recommender_shows_its_generations_plan_runs_and_schedule(client: FlaskClient) -> None:
    seen = text_of(client.get("/r/retail").text)
    for words in (
        "generation 3, since",
        "240 users, 120 items",
        "exact scan",
        "popularity, ndcg@20",
        "Generation 3 is live.",
        "Schedule none",
    ):
        assert words in seen
    assert "Take" not in seen
    run = text_of(client.get("/r/retail/run/3").text)
    for words in ("succeeded", "240 users, 120 items", "calibrate", "held-out pairs"):
        assert words in run


def test_the_metric_of_each_generation_is_drawn(client: FlaskClient) -> None:
    page = client.get("/r/retail").text
    assert page.count("<polyline") >= 4  # three metrics, and popularity's
    assert re.findall(r"<title>generation (\d): 0", page)[:2] == ["2", "3"]


def test_a_user_sees_views_recommendations_reasons_and_the_generation_before(
    client: FlaskClient, pictured: Database
) -> None:
    page = client.get("/r/retail/user?id=1&item=7").text
    (viewed, _), (recommended, _), (explained, _), (before, statement) = lists_of(page)
    own = [str(row["product_id"]) for row in look(pictured, "SELECT product_id FROM shop.views WHERE user_id = 1")]
    assert set(viewed) <= set(own)
    assert not set(recommended) & set(own)
    assert set(explained) <= set(own)
    assert "SET LOCAL recstore.generation = '2'" in statement
    assert len(before) == 10
    assert "Why product 7" in text_of(page)
    assert "Generation 2, the generation before" in text_of(page)


def test_titles_are_text_whatever_they_hold(client: FlaskClient) -> None:
    page = client.get("/r/retail/items?q=script").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert HOSTILE.split("&")[0] in text_of(page)
    assert f'<h1 dir="auto">{RIGHT_TO_LEFT}' in client.get("/r/retail/item?id=2").text
    assert LONG in client.get("/r/retail/item?id=1").text


def test_a_picture_is_shown_by_its_url_and_by_no_script(client: FlaskClient) -> None:
    assert 'src="http://127.0.0.1:9/1.png"' in client.get("/r/retail/item?id=1").text
    assert "javascript:" not in client.get("/r/retail/item?id=2").text


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("HANDMADE jug", ["1"]),
        ("jug HANDMADE", ["1"]),
        ("%", []),
        ("7", None),
        ("120", ["120"]),
        ("nix' OR 1=1", []),
        ("كريمي", ["2"]),
    ],
)
def test_a_search_wants_every_word_of_a_title_or_an_id(client: FlaskClient, text: str, ids: list[str] | None) -> None:
    page = client.get("/r/retail/items", query_string={"q": text})
    assert page.status_code == 200
    found = [one for listed, _ in lists_of(page.text) for one in listed]
    assert found == ids if ids is not None else "7" in found
    if ids == []:
        assert "No " in text_of(page.text)


@pytest.mark.parametrize(
    ("address", "code", "words"),
    [
        ("/r/nix", 404, "Recommender 'nix' does not exist."),
        ("/r/nix/items", 404, "Recommender 'nix' does not exist."),
        ("/nix", 404, "There is no such page."),
        ("/r/retail/run/99", 404, "Run 99 does not exist."),
        ("/r/retail/search/99", 404, "Study"),
        ("/r/retail/item?id=nix", 400, "item id"),
        ("/r/retail/item", 400, "item id"),
        ("/r/retail/user?id=nix", 400, "user id"),
        ("/r/retail/user?id=%00", 400, "user id"),
        ("/r/retail/basket?item=1.5", 400, "item id"),
        ("/r/retail/item?id=999", 200, "This item was not in the last training."),
        ("/r/retail/user?id=999", 200, "This user has viewed nothing."),
        ("/r/retail/user?id=99999999999999999999999", 400, "user id"),
        ("/r/retail/compare?a=1&b=99", 200, "Generation 99 of 'retail' does not exist"),
        ("/r/retail/items?q=%00", 200, "Most popular"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence(client: FlaskClient, address: str, code: int, words: str) -> None:
    answer = client.get(address)
    assert (answer.status_code, words in text_of(answer.text)) == (code, True), text_of(answer.text)
    assert "Traceback" not in answer.text


def test_a_database_that_is_down_empty_or_untrained_is_a_sentence(empty: Database, shop: Database) -> None:
    gone = client_of(Database(empty.server, "nix"))
    assert gone.get("/").status_code == 503
    assert 'database "nix" does not exist' in text_of(gone.get("/").text)
    assert "recstore db upgrade" in text_of(client_of(empty).get("/").text)
    client = client_of(shop)
    assert "There is no recommender yet." in text_of(client.get("/").text)
    shop.create()
    assert "Nothing is trained yet. Run: recstore retrain retail" in text_of(client.get("/").text)
    assert "Nothing is trained yet." in text_of(client.get("/r/retail").text)
    for page in ("items", "user?id=1", "item?id=1", "basket", "compare"):
        assert "has no live generation yet" in text_of(client.get(f"/r/retail/{page}").text), page


def test_a_failed_run_and_the_next_times_are_shown(trained: Database) -> None:
    trained.alter(schedule=Schedule(cron="0 3 * * *", timezone="Europe/Madrid"))
    with trained.connect("application") as connection:
        connection.execute("DELETE FROM shop.views")
    with pytest.raises(Exception, match="no usable rows"):
        trained.retrain()
    client = client_of(trained)
    for address in ("/", "/r/retail", "/r/retail/run/2"):
        assert "returned no usable rows" in text_of(client.get(address).text), address
    seen = text_of(client.get("/").text)
    assert "At 03:00 every day (Europe/Madrid); next " in seen
    assert "generation 1, since" in seen


def test_what_a_flip_waits_for_is_shown(trained: Database) -> None:
    blocker = trained.connect("application")
    with trained.connect() as connection:
        readers.grant_reader(connection, registry.get(connection, "retail"), "application", people=True)
    blocker.execute("BEGIN; SELECT count(*) FROM retail.item_vectors")
    settings = trained.settings.model_copy(update={"flip_wait": 0})
    assert pipeline.retrain(trained.url, settings, "retail").live
    assert not pipeline.retrain(trained.url, settings, "retail").live
    client = client_of(trained)
    assert "Waiting generation 3 waits for" in text_of(client.get("/r/retail").text)
    blocker.execute("COMMIT")


def test_a_role_sees_people_only_where_it_may(trained: Database) -> None:
    with trained.connect() as connection:
        grants.grant_watcher(connection, "application")
        readers.grant_reader(connection, registry.get(connection, "retail"), "application")
    client = client_of(trained, "application")
    assert "240 users, 120 items" in text_of(client.get("/").text)
    assert lists_of(client.get("/r/retail/item?id=6").text)
    assert lists_of(client.get("/r/retail/basket?item=6").text)
    for address in ("/r/retail/user", "/r/retail/user?id=1&item=6"):
        answer = client.get(address)
        assert answer.status_code == 200
        assert not lists_of(answer.text)
        assert "The role application may not see this: permission denied" in text_of(answer.text)
        assert "run: recstore grant retail application --people" in text_of(answer.text)
    with trained.connect() as connection:
        readers.grant_reader(connection, registry.get(connection, "retail"), "application", people=True)
    assert len(lists_of(client.get("/r/retail/user?id=1&item=6").text)) == 3


def test_titles_that_a_role_may_not_read_are_a_sentence_where_the_list_would_be(trained: Database) -> None:
    trained.alter(titles=Titles(table="shop.products", item="product_id", title="title"))
    with trained.connect("application") as connection:
        connection.execute("REVOKE SELECT ON shop.products FROM worker")
    client = client_of(trained)
    for address in (
        "/r/retail/items?q=6",
        "/r/retail/item?id=6",
        "/r/retail/basket?item=6",
        "/r/retail/user?id=1&item=6",
    ):
        answer = client.get(address)
        assert answer.status_code == 200
        assert "permission denied for table products" in text_of(answer.text), address


def test_a_role_that_sees_nothing_reads_which_grant_it_needs(trained: Database) -> None:
    answer = client_of(trained, "application").get("/")
    assert "The role application may not see this: permission denied for schema recstore" in text_of(answer.text)
    assert "To let it, run: recstore db grant application" in text_of(answer.text)


def test_a_page_cannot_write_and_keeps_one_snapshot(shared: Database) -> None:
    with closing(Pages(shared.settings)) as pages, pages.reading() as page:
        with pytest.raises(pg.ReadOnlySqlTransaction), page.opened.transaction():
            page.opened.execute("CREATE TABLE public.nix ()")
        (row,) = page.opened.execute("SHOW transaction_isolation").fetchall()
        assert row == {"transaction_isolation": "repeatable read"}
        (row,) = page.opened.execute("SHOW statement_timeout").fetchall()
        assert row == {"statement_timeout": "1min"}


def test_a_connection_that_the_server_closed_is_replaced(shared: Database) -> None:
    client = client_of(shared)
    assert client.get("/").status_code == 200
    ended = look(
        shared,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'recstore:explorer'",
    )
    assert ended
    assert client.get("/").status_code == 200


def test_on_this_machine_only_its_own_names_are_answered(shared: Database) -> None:
    client = client_of(shared)
    for name in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000"):
        assert client.get("/", headers={"Host": name}).status_code == 200
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_without_a_password_no_other_machine_and_no_operator_is_served() -> None:
    for host, operators in (("0.0.0.0", False), ("192.0.2.1", False), ("shop.example", False), ("127.0.0.1", True)):
        with pytest.raises(InvalidInput, match="RECSTORE_EXPLORER_PASSWORD"):
            check(Settings(), host, operators)
    for host in ("127.0.0.1", "::1", "localhost"):
        check(Settings(), host, False)
    check(Settings(explorer_password="x"), "0.0.0.0", True)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"cannot listen on 192.0.2.1:8000"):
        serve(Settings(explorer_password="x"), "192.0.2.1", 8000)  # type: ignore[arg-type]


def token(client: FlaskClient, address: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get(address).text)
    assert found
    return found[1]


def log_in(client: FlaskClient, password: str = "right", to: str = "") -> object:
    data = {"csrf": token(client, "/login"), "password": password}
    return client.post("/login" + to, data=data)


def test_a_password_guards_every_page(shared: Database) -> None:
    client = client_of(shared, password="right")
    for address in PAGES:
        answer = client.get(address)
        assert answer.status_code == 302
        assert answer.location.startswith("/login?to=/")
    with client.get("/static/explorer.css") as sheet:
        assert sheet.status_code == 200
    assert client.post("/login", data={"password": "right"}).status_code == 403  # no token
    wrong = log_in(client, "wrong")
    assert wrong.status_code == 403  # type: ignore[attr-defined]
    assert "This is not the password." in wrong.text  # type: ignore[attr-defined]
    assert "moment ago" in log_in(client).text  # type: ignore[attr-defined]
    client.application.extensions["pause"] = 0
    answer = log_in(client, to="?to=//evil.example/")
    assert answer.location == "/"  # type: ignore[attr-defined]
    cookie = answer.headers["Set-Cookie"]  # type: ignore[attr-defined]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert client.get("/r/retail", headers={"Host": "shop.example"}).status_code == 302  # a cookie is for its host
    assert client.get("/r/retail").status_code == 200
    client.post("/logout", data={"csrf": token(client, "/r/retail")})
    assert client.get("/r/retail").status_code == 302


def test_buttons_are_for_operators_with_a_token(trained: Database) -> None:
    make_titles(trained)
    readers_client = client_of(trained, password="right")
    log_in(readers_client)
    assert "Retrain" not in text_of(readers_client.get("/r/retail").text)
    assert readers_client.post("/r/retail/do/retrain").status_code in (403, 404)

    client = client_of(trained, password="right", operators=True)
    log_in(client)
    csrf = token(client, "/r/retail")

    def do(action: str, name: str = "retail", **data: object) -> str:
        answer = client.post(f"/r/{name}/do/{action}", data={"csrf": csrf} | data)
        assert answer.status_code == 302
        return text_of(client.get(answer.location).text)

    for action in ("retrain", "reindex", "publish", "rollback", "cancel"):
        assert client.get(f"/r/retail/do/{action}").status_code == 405
        assert client.post(f"/r/retail/do/{action}").status_code == 403
        assert client.post(f"/r/retail/do/{action}", data={"csrf": "x"}).status_code == 403
        for foreign in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert client.post(f"/r/retail/do/{action}", data={"csrf": csrf}, headers=foreign).status_code == 403
    assert look(trained, "SELECT * FROM recstore.requests") == []
    assert states(trained)[3] == "live"

    assert "Asked a worker to retrain retail: request 1." in do("retrain")
    assert "Asked a worker to reindex retail: request 2." in do("reindex")
    assert "Request 1 is cancelled." in do("cancel_request", number=1)
    assert [row["state"] for row in look(trained, "SELECT state FROM recstore.requests ORDER BY 1")] == [
        "cancelled",
        "waiting",
    ]
    assert "Generation 1 is live again instead of 3." in do("rollback", number=1)
    assert states(trained)[1] == "live"
    assert "no generation ready to publish" in do("publish")
    assert "Run 99 does not exist." in do("cancel", number=99)
    assert client.post("/r/retail/do/drop", data={"csrf": csrf}).status_code == 404
