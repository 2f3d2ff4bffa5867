"""Python has everything of the command line, under the same names, with the same answers as rows."""

import inspect
import json
import keyword
from collections.abc import Callable, Iterator
from dataclasses import fields
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from conftest import Database, database_from, superuser
from support import Hook
from support_mistakes import commands

import recstore as public
from recstore import Definition, Recstore, cli, errors
from recstore.api import options, rows
from recstore.cli.screen import as_json
from recstore.definition import Hyperparameters, Source, Titles
from recstore.embedded import Server

NO_METHOD = {
    "psql": "an interactive program",
    "up": "a supervisor in the foreground",
    "explore": "a web page, which is served until Ctrl-C",
    "worker": "a process of its own; a program starts it as such",
    "demo": "a show for people",
    "worker-demo": "a show for people",
}
"""Commands without a method, and why."""

NO_OPTION = {
    "json": "results are rows",
    "yes": "nobody is asked; what can be done by mistake has a `yes` of its own",
    "recommend sql": "Recommender.select_recommend composes",
    "similar sql": "Recommender.select_similar_items composes",
    "explain sql": "Recommender.select_explain composes",
    "popular sql": "Recommender.select_popular_items composes",
    "status watch": "ask again",
    "status interval": "ask again",
    "logs trace": "RunStory.trace",
    "tune stop": "stop_tuning()",
    "doctor all": "the list has all",
    "doctor nagios": "findings have levels",
}
"""Options without a parameter, of every command or of one, and why."""


@pytest.fixture(scope="module")
def trained(server: Server, shop_template: str) -> Iterator[Database]:
    """A recommender with titles, two generations and an open request."""
    with database_from(server, shop_template) as database:
        titles = Titles(table="shop.products", item="product_id", title="title")
        database.create(titles=titles)
        for _ in range(2):
            database.retrain()
        store_of(database).request.reindex("retail")
        yield database


def store_of(database: Database) -> Recstore:
    return Recstore(database.url, retention=0, home=Path("/nonexistent"))


def method_of(store: Any, command: str) -> Callable[..., Any] | None:
    for part in command.split():
        name = part.replace("-", "_")
        store = getattr(store, name + "_" * keyword.iskeyword(name), None)
    return store  # type: ignore[no-any-return]


def option_of(parameter: Any) -> str:
    """The option's long name as a parameter's, or the argument's."""
    longest = max(parameter.opts, key=len)
    name = longest.lstrip("-").replace("-", "_")
    return name + "_" * keyword.iskeyword(name)


def test_every_command_has_its_method_with_the_same_options() -> None:
    store = Recstore("postgresql://nowhere/x")
    known = {options.flag(s, n).replace("-", "_") for s, model in options.SECTIONS.items() for n in model.model_fields}
    lacking, looked_at, used = [], 0, set()
    for command, found in commands():
        method = method_of(store, command)
        if command.split()[0] in NO_METHOD:
            assert method is None, f"{command} has a method: take it out of NO_METHOD"
            continue
        if method is None:
            lacking.append(command)
            continue
        assert method.__doc__, f"{command} has no docstring"
        parameters = signature(method).parameters
        settings = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
        for parameter in found.params:
            name = option_of(parameter)
            reasons = {name, f"{command} {name}"} & NO_OPTION.keys()
            used |= reasons
            if name == "dry_run":
                present = method_of(store.dry_run, command) is not None
            else:
                present = name in parameters or bool(reasons) or (settings and name in known)
            looked_at += 1
            if not present:
                lacking.append(f"{command} --{name}")
    assert not lacking
    assert looked_at > 150
    assert used == NO_OPTION.keys()
    assert {command.split()[0] for command, _ in commands()} >= NO_METHOD.keys()
    page = (Path(__file__).parents[2] / "docs/python.md").read_text()
    for command in NO_METHOD:
        assert f"`{command}`" in page, f"docs/python.md does not tell that {command} has no method"


def plain(value: Any) -> Any:
    """Return the JSON of a row."""
    return json.loads(as_json(value))


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("list", lambda store: store.list()),
        ("show retail", lambda store: store.show("retail")),
        ("generations retail --all", lambda store: store.generations("retail", all=True)),
        ("recommend retail 1 -k 3", lambda store: store.recommend("retail", 1, k=3)),
        ("recommend retail 1 --seen", lambda store: store.recommend("retail", "1", seen=True)),
        ("recommend retail --items 3,5 -k 2", lambda store: store.recommend("retail", items=[3, 5], k=2)),
        (
            "recommend retail --items 3,5 --weights 1.5,-1",
            lambda store: store.recommend("retail", items=["3", 5], weights=[1.5, -1]),
        ),
        ("recommend retail 1 --items 8,3,999,8", lambda store: store.recommend("retail", 1, items=[8, 3, 999, 8])),
        ("similar retail 3 --min-users 1", lambda store: store.similar("retail", 3, min_users=1)),
        ("popular retail -k 2", lambda store: store.popular("retail", k=2)),
        ("runs retail --job retrain", lambda store: store.runs("retail", job="retrain")),
        ("logs retail", lambda store: store.logs("retail")),
        ("logs 1", lambda store: store.logs(1)),
        ("requests retail --open", lambda store: store.requests("retail", open=True)),
        ("status retail", lambda store: store.status("retail")),
        ("studies", lambda store: store.studies()),
        ("db current", lambda store: store.db.current()),
        ("rollback retail --dry-run", lambda store: store.dry_run.rollback("retail")),
        ("drop retail --dry-run", lambda store: store.dry_run.drop("retail")),
        (
            "recommend-all retail --into x.csv --dry-run",
            lambda store: store.dry_run.recommend_all("retail", "x.csv"),
        ),
    ],
)
def test_rows_say_what_the_commands_say(
    line: str, call: Callable[[Recstore], Any], trained: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    result = call(store_of(trained))
    assert capsys.readouterr() == ("", ""), "nothing prints"
    assert cli.run(["--database", trained.url, *line.split(), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    found = [plain(row) for row in result] if isinstance(result, list) else plain(result)
    if line == "status retail":
        assert found.pop("now") <= said.pop("now")
    assert found == said


def test_a_recommenders_life(shop: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a definition to its end, in Python alone; each answer is a row, each mistake an error with its data."""
    store = store_of(shop)
    definition = Definition(
        source=Source(table="shop.views", item="product_id", value="view_count"),
        hyperparameters=Hyperparameters(factors=16, iterations=5),
    )
    assert 'CREATE SCHEMA "retail"' in str(store.dry_run.create("retail", definition, search="exact"))
    made = store.create("retail", definition, search="exact", titles="shop.products:product_id:title")
    assert (made.name, made.item_type, made.dimensions, made.live) == ("retail", "integer", 64, None)
    assert made.lookup.indexed
    with pytest.raises(errors.NotTrained) as untrained:
        store.popular("retail")
    assert untrained.value.name == "retail"
    hook = Hook()
    assert store.retrain("retail", threads=1, reporter=hook).live
    assert list(hook.stages)[:2] == ["prepare", "read"]

    altered = store.alter("retail", {"filters": {"min_users_per_item": 2}}, factors=None, schedule="0 3 * * *")
    assert altered.definition["filters"]["min_users_per_item"] == 2
    assert altered.definition["hyperparameters"]["factors"] is None
    assert altered.next_retrain
    with pytest.raises(errors.InvalidInput, match="room for 64 factors, not 96"):
        store.alter("retail", factors=96)
    with pytest.raises(errors.InvalidInput, match="no option 'factor' here; there are factors"):
        store.alter("retail", factor=96)
    store.alter("retail", factors=96, resize=True)
    second = store.retrain("retail").generation
    assert store.rollback("retail").live == 1
    assert store.rollback("retail", to=second) == rows.RolledBack(1, second)

    written = store.export("retail", tmp_path / "retail.npz")
    assert (written.users, written.items) == (240, 120)
    assert store.dry_run.import_("copy", written.file, create=True).creates
    assert store.import_("copy", written.file, create=True).live
    lists = store.recommend_all("retail", tmp_path / "all.csv", k=3)
    assert store.dry_run.similar_all("retail", tmp_path / "all.csv").into == str(tmp_path / "all.csv")
    assert (lists.lists, lists.rows) == (240, 720)
    with shop.connect("application") as connection:
        connection.execute("GRANT CREATE ON SCHEMA shop TO worker")
    planned = store.dry_run.load(tmp_path / "all.csv", "shop.listed")
    loaded = store.load(tmp_path / "all.csv", "shop.listed", type={"user_id": "bigint"})
    assert (planned.written, loaded.written) == (0, 720)
    (tmp_path / "bad.csv").write_text("id,b\n" + "".join(f"{n},2\n" for n in range(9)) + "3\n4\n")
    with pytest.raises(errors.BadLinesFound):
        store.load(tmp_path / "bad.csv", "shop.bad", max_bad=1.0)
    planned = store.dry_run.load(tmp_path / "bad.csv", "shop.bad", columns="id, b", primary_key="id,b", max_bad=2.0)
    assert (planned.bad_allowed, "ADD PRIMARY KEY (id, b)" in planned.statements[-1]) == (2, True)
    with pytest.raises(errors.TableExists):
        store.load(tmp_path / "all.csv", "shop.listed")
    with pytest.raises(errors.InvalidInput, match="the file that is loaded"):
        store.dry_run.load(tmp_path / "all.csv", "shop.more", bad=tmp_path / "all.csv", max_bad=1e-5)
    assert store.prune("retail", keep=1).pruned == [1]
    measured = store.evaluate("retail", factors=8, share=0.1, split="share", k=[5])
    assert measured.results[0].metrics["recall@5"] is not None
    assert "GRANT SELECT" in str(store.grant("retail", "application"))
    assert store.db.check().revision == store.db.current().needed

    assert store.request.retrain("retail").state == "waiting"
    with pytest.raises(errors.StillOpen) as still:
        store.request.reindex("retail", wait=True, timeout=0)
    assert store.request.cancel(still.value.request).state == "cancelled"
    with pytest.raises(errors.RequestBegun) as begun:
        store.request.cancel(still.value.request)
    assert begun.value.state == "cancelled"
    with pytest.raises(errors.BrokerUnreachable, match="could not be reached"):
        Recstore(shop.url, broker_url="redis://127.0.0.1:1").health()
    assert store.drop("copy") == rows.Dropped("copy", [])
    assert [row.recommender for row in store.list()] == ["retail"]
    assert capsys.readouterr() == ("", "")


def test_a_search_is_taken_up_and_adopted(trained: Database) -> None:
    store = store_of(trained)
    grid = {"factors": [4, 8]}
    left = store.tune("retail", grid=grid, background=True, parallel=2)
    assert (left.state, left.found, left.winner) == ("running", None, None)
    done = store.tune("retail", grid=grid, max_iterations=3, study=left.study, adopt=True)
    assert (done.study, done.state, done.adopted) == (left.study, "ended", True)
    assert done.winner
    assert store.show("retail").definition["hyperparameters"]["factors"] == done.winner.parameters["factors"]
    (study,) = store.studies("retail")
    assert study.adopted_at
    assert [trial.parameters["factors"] for trial in store.studies("retail", study.study)] == [4, 8]
    assert store.stop_tuning("retail") == []
    with pytest.raises(errors.StudyNotFound) as missing:
        store.studies("retail", 99)
    assert missing.value.study == "99 of 'retail'"


@pytest.mark.parametrize(
    ("row", "view"),
    [
        (rows.Generation, "generations"),
        (rows.Run, "runs"),
        (rows.Request, "requests"),
        (rows.Summary, "status"),
        (rows.Dispatch, "dispatches"),
        (rows.Study, "studies"),
        (rows.Trial, "trials"),
    ],
)
def test_rows_have_the_views_columns(row: type[Any], view: str, trained: Database) -> None:
    with trained.connect() as connection:
        columns = connection.execute(f"SELECT * FROM recstore.{view} LIMIT 0").description
    assert [field.name for field in fields(row)] == [column.name for column in columns or ()]


def test_the_database_and_the_settings_are_found_as_by_the_commands(
    trained: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = sa.make_url(trained.url.replace("postgresql:", "postgresql+psycopg:"))
    assert [row.recommender for row in Recstore(url).list()] == ["retail"]
    monkeypatch.setenv("RECSTORE_DATABASE_URL", trained.url)
    monkeypatch.setenv("RECSTORE_FLIP_WAIT", "3")
    assert Recstore().url == trained.url
    assert Recstore(device="cpu").settings.flip_wait == 3
    with pytest.raises(errors.InvalidInput, match="RECSTORE_DEVICE is 'tpu'"):
        Recstore(device="tpu")
    with pytest.raises(errors.InvalidInput, match="RECSTORE_THREADS is -1"):
        Recstore().retrain("retail", threads=-1)
    monkeypatch.delenv("RECSTORE_DATABASE_URL")
    with pytest.raises(errors.ConnectionFailed) as nowhere:
        Recstore(home=tmp_path).list()
    assert "no embedded server runs in" in nowhere.value.reason


def test_the_first_file_of_settings(shop: Database, tmp_path: Path) -> None:
    store, file = store_of(shop), tmp_path / "recstore.toml"
    assert store.init().candidates[0]["table"] == "shop.views"
    given = {"table": "shop.views", "user": "user_id", "item": "product_id", "value": "view_count"}
    text = store.dry_run.init(file, **given)
    written = store.init(file, **given, candidates_table="shop.products", candidates_condition="visible")
    assert written.written == str(file)
    assert 'table = "shop.views"' in text
    assert store.create("retail", file=file).definition == written.definition
    assert store.show("retail").definition["candidates"]["condition"] == "visible"
    with pytest.raises(errors.InvalidInput, match="Say which table and columns"):
        store.init(file, table="shop.views")


def test_a_publication_of_everything_needs_a_yes(shop: Database) -> None:
    with superuser(shop.server, shop.name) as connection:
        connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    store = store_of(shop)
    with pytest.raises(errors.PublicationOfEverything) as refused:
        store.create("retail", {"source": Source(table="shop.views", item="product_id")})
    assert refused.value.publications == "everything"
    assert store.list() == []
    made = store.create("retail", {"source": Source(table="shop.views", item="product_id")}, yes=True)
    assert made.definition["source"]["item"] == "product_id"


MISTAKES: list[tuple[str, Callable[[Recstore], Any]]] = [
    (r"recommend\(\): k is None: it must be a whole number", lambda s: s.recommend("retail", 1, k=None)),
    (r"popular\(\): k is 3.5: it must be a whole number", lambda s: s.popular("retail", k=3.5)),
    (r"recommend_all\(\): k is b'': it must be", lambda s: s.recommend_all("retail", "x.csv", k=b"")),
    (
        r"recommend_all\(\): users is \[1, 2\]: it must be text",
        lambda s: s.recommend_all("retail", "x.csv", users=[1, 2]),
    ),
    (r"prune\(\): keep is 'x': it must be a whole number", lambda s: s.prune("retail", keep="x")),
    (r"alter\(\): definition is 'x': it must be a Definition", lambda s: s.alter("retail", "x")),
    (r"create\(\): definition is .*a\.toml", lambda s: s.create("x", Path("a.toml"))),
    (r"create\(\): titles is {'table': 'y'}: it must be text", lambda s: s.create("x", titles={"table": "y"})),
    (r"export\(\): 'a.x00.npz' is no text that can be written", lambda s: s.export("retail", "a\0.npz")),
    (r"show\(\): '.ud800' is no text", lambda s: s.show("\ud800")),
    (r"export\(\): '.ud800' is no text", lambda s: s.export("retail", Path("\ud800"))),
    (r"load\(\): type is \('a', 'b'\): it must be", lambda s: s.load("x.csv", "a.b", type=("a", "b"))),
    (r"load\(\): null is 'NA': it must be a list", lambda s: s.dry_run.load("x.csv", "a.b", null="NA")),
    (r"grant\(\): role is <object .*>: it must be text", lambda s: s.grant("retail", object())),
    (r"revoke\(\): role is .* it must be text", lambda s: s.db.revoke(object())),
    (r"retrain\(\): reporter is <built-in .*>: it must be a Reporter", lambda s: s.retrain("retail", reporter=print)),
    (r"evaluate\(\): k is 10: it must be a Sequence", lambda s: s.evaluate("retail", k=10)),
    (r"evaluate\(\): split is 'item': it must be time, user or share", lambda s: s.evaluate("retail", split="item")),
    ("Name a user, or the items of a basket", lambda s: s.recommend("retail", None)),
    (r"popular\(\): kay is 2: this option does not exist", lambda s: s.popular("retail", kay=2)),
]


def test_a_mistake_is_a_sentence_before_anything_begins(trained: Database) -> None:
    store = store_of(trained)
    runs = store.runs()
    for sentence, call in MISTAKES:
        with pytest.raises(errors.InvalidInput, match=sentence):
            call(store)
    assert store.runs() == runs
    assert len(store.popular("retail", k=np.int64(2))) == 2


def test_public_names_are_there() -> None:
    assert set(public.__all__) >= {"Recstore", "Recommender", "AsyncRecommender", "Definition", "RecstoreError", "rows"}
    for name in public.__all__:
        assert getattr(public, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Recommendr'"):
        public.Recommendr  # noqa: B018


def test_every_method_looks_at_what_it_is_given(shop: Database) -> None:
    """Its annotations can be checked at all; `no_such_option` is refused before anything else is done."""
    store = store_of(shop)
    for command, _ in commands():
        method = method_of(store, command)
        takes_any = method and any(p.kind is p.VAR_KEYWORD for p in inspect.signature(method).parameters.values())
        if method and not takes_any:
            with pytest.raises(errors.InvalidInput, match=r"\(\): "):
                method(no_such_option=1)
