"""`recstore load`: files into tables, as people and programs meet it."""

import csv
import datetime
import decimal
import io
import sys
import uuid
from collections.abc import Callable
from importlib import resources
from itertools import zip_longest
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Answer, Command, Database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Hook
from support_sql import column, rows, value

from recstore.errors import LoadInterrupted, LoadRefused
from recstore.files.load import staging, writing
from recstore.files.load.examining import Plan, Wanted, examine
from recstore.files.load.text import TextOptions
from recstore.files.load.writing import write
from recstore.files.opening import opened
from recstore.postgres.connection import Connection

DEMO = resources.files("recstore.demo").joinpath("data")


@pytest.fixture
def load(shop: Database, recstore: Command, tmp_path: Path) -> Any:
    """`recstore load` as the application's role, of a text that is given."""

    def run(content: str | bytes, line: str, *more: str, name: str = "views.csv") -> Answer:
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return recstore(f"load {file} {line}", *more, url=shop.url_of("application"))

    return run


def load_in(connection: Connection, file: Path, wanted: Wanted, then: Callable[[], None] = lambda: None) -> Plan:
    """In this process, without the command line."""
    with opened(str(file)) as found:
        plan = examine(connection, found, wanted, Hook())
        write(connection, plan, Hook(on_progress=lambda _: then()))
    return plan


def test_the_demos_own_file_becomes_a_table_to_recommend_from(
    shop: Database, application: Connection, recstore: Command
) -> None:
    file = str(DEMO.joinpath("online_retail_2010.views.csv.gz"))
    url = shop.url_of("application")
    answer = recstore(f"load {file} --table shop.bought --primary-key user_id,resource_id --json", url=url).expect(0)
    told = answer.json
    assert [(one["name"], one["type"]) for one in told["columns"]] == [
        ("user_id", "integer"),
        ("resource_id", "integer"),
        ("view_count", "integer"),
    ]
    assert told["rows"] == told["written"] == value(application, "SELECT count(*) FROM shop.bought") == 273_844
    assert value(application, "SELECT reltuples FROM pg_class WHERE oid = 'shop.bought'::regclass") == 273_844
    application.execute("GRANT SELECT ON shop.bought TO worker")
    recstore("create bought --table shop.bought --item resource_id --value view_count").expect(0)


BAD = (
    "user_id,title,views\r\n"
    '1,"two\r\nlines",3\r\n'  # 2
    "2,one field less\r\n"  # 4
    '3,"a" b,1\r\n'  # 5
    + "".join(f"{n},good,1\r\n" for n in range(100))  # 6
    + "4,not a number,many\r\n"  # 106
    '5,"open,1\r\n'  # 107
    "6,last,2\r\n"
)


def test_bad_lines_are_told_with_their_numbers_and_nothing_is_written(
    load: Any, application: Connection, tmp_path: Path
) -> None:
    told = tmp_path / "bad.csv"
    refused = load(BAD.encode() + b"7,\xff,1\r\n", "--table shop.bad --json", "--bad", str(told)).expect(
        2, "5 of 107 lines of", "--encoding latin-1"
    )
    assert refused.json["bad_lines"] == [4, 5, 106, 107, 109]
    assert refused.json["written"] == 0
    assert value(application, "SELECT to_regclass('shop.bad')::text") is None
    with told.open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert [(one["line"], one["reason"], one["text"]) for one in listed] == [
        ("4", "2 fields instead of 3", "2,one field less"),
        ("5", "a quote in the middle of a field", '3,"a" b,1'),
        ("106", "views: 'many' is no integer", "4,not a number,many"),
        ("107", "a quote that is not closed", '5,"open,1'),
        ("109", "not utf-8 text", "7,\\xff,1"),
    ]
    assert [file.name for file in tmp_path.iterdir() if "part" in file.name] == []
    few = load(BAD, "--table shop.bad --max-bad 3 --dry-run")
    assert few.code == 2  # as without --dry-run
    assert "4 of 106 lines" in few.err
    assert "line 106: views: 'many' is no integer" in few.out
    load(BAD, "--table shop.bad --max-bad 4%").expect(0)
    assert value(application, "SELECT count(*) FROM shop.bad") == 102
    assert column(application, "SELECT title FROM shop.bad WHERE views > 1 ORDER BY 1") == ["last", "two\r\nlines"]


@pytest.mark.parametrize(
    ("text", "bad", "names", "good"),
    [
        ('u,i,n\n1,2,3\n1,2\n1,2,3,4\n1,"2,3\n' + "4,5,6\n" * 4, [3, 4, 5], ["u", "i", "n"], 5),
        ("# by hand\n# on a day\nuser_id,item_id\n1,2\n3,4\n5,6\n", [1, 2], ["user_id", "item_id"], 3),
        ("sep=;\nuser_id;price\n1;2,5\n2;3,5\n", [], ["user_id", "price"], 2),
        ("user_id,item_id\n1,2,\n3,4,\n", [], ["user_id", "item_id", "column_3"], 2),
        ("1::1193::5::978300760\n1::661::3::978302109\n2::x\n", [3], [f"column_{n}" for n in range(1, 5)], 2),
    ],
)
def test_a_few_odd_lines_do_not_hide_what_the_others_are(
    text: str, bad: list[int], names: list[str], good: int, load: Any
) -> None:
    told = load(text, "--table shop.odd --json --yes --max-bad 3").json
    assert (told["bad_lines"], told["written"]) == (bad, good)
    assert [one["name"] for one in told["columns"]] == names
    assert told["columns"][0]["type"] == "integer"


def test_what_the_columns_are_is_said_where_it_may_surprise(load: Any) -> None:
    doubled = load("user_id,item_id,user_id\n1,2,3\n", "--table shop.doubled --yes")
    assert "Two columns of the file are named user_id." in doubled.err
    told = load("1, 2,18446744073709551615\n3, 4,1\n", "--table shop.hinted --yes")
    assert "--type column_3=numeric" in told.out
    assert "its columns are named column_1, column_2, column_3: --columns A,B,C" in told.out


TYPES: list[tuple[list[str], str, str]] = [
    (["1", "-2147483648"], "integer", ""),
    (["1", " 2"], "integer", ""),
    (["1", "2147483648"], "bigint", ""),
    (["1", "", "9223372036854775807"], "bigint", ""),
    (["1", "9223372036854775808"], "text", "--type c4=numeric"),
    (["1", "007"], "text", ""),
    (["1", "+7"], "text", ""),
    (["1", "1_000"], "text", ""),
    (["1", "2.5", ".5", "1e3"], "double precision", ""),
    (["1.0", "1.23457E+11"], "double precision", "digits"),
    (["1.234", "12.500"], "double precision", "thousands"),
    (["0.1", "12345678901234567.25"], "numeric", ""),
    (["0.5", "9007199254740993"], "numeric", ""),
    (["1.5", "NaN"], "text", ""),
    (["true", "F"], "boolean", ""),
    (["true", "yes"], "text", ""),
    (["2024-05-01", "2024-02-29"], "date", ""),
    (["2024-05-01", "2024-02-30"], "text", ""),
    (["2024-05-01", "2024-05-01T10:00"], "timestamp", ""),
    (["2024-05-01 10:00:00", "2024-05-01 24:00:00"], "text", ""),
    (["2024-05-01 10:00:00.1234567"], "text", ""),
    (["2024-05-01 10:00Z", "2024-05-01 10:00+02", "2024-05-01 10:00 UTC", "2024-05-01 10:00 +0200"], "timestamptz", ""),
    (["2024-05-01 10:00:00Z", "2024-05-01 10:00"], "text", ""),
    (["today", "now"], "text", ""),
    (["123E4567-e89b-12d3-a456-426614174000"], "uuid", ""),
    (["d41d8cd98f00b204e9800998ecf8427e"], "text", ""),
    (["", ""], "text", "no values"),
    ([*["1"] * 19, "x"], "integer", ""),
    ([*["1"] * 18, "x"], "text", "--type c28=integer"),
    (["9" * 400 + ".5", "1"], "numeric", ""),
    (["3.000", "4.000"], "double precision", "thousands"),
]


@pytest.mark.contract
@pytest.mark.parametrize("soft", [True, False])
def test_the_type_of_a_column_is_the_narrowest_that_keeps_its_values(
    soft: bool, application: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the server can only raise an error about a value, as PostgreSQL 15 does."""
    if not soft:
        monkeypatch.setattr(staging, "SOFT_ERRORS", sys.maxsize)
    file = tmp_path / "types.csv"
    with file.open("w", newline="") as text:
        csv.writer(text, delimiter=";").writerows(
            [[f"c{n}" for n in range(len(TYPES))], *zip_longest(*(values for values, _, _ in TYPES), fillvalue="")]
        )
    with opened(str(file)) as found:
        plan = examine(application, found, Wanted("shop.found"), Hook())
    told = [(column.type, column.note) for column in plan.columns]
    assert [type for type, _ in told] == [type for _, type, _ in TYPES]
    assert [
        (note, part)
        for (_, note), (_, _, part) in zip(told, TYPES, strict=True)
        if part not in note or bool(part) != bool(note)
    ] == []
    assert plan.bad.reasons == {21: "c27: 'x' is no integer"}


def test_the_types_are_shown_before_anything_is_written(load: Any, application: Connection) -> None:
    text = "Id;Started at;Zip code;order\n1;2024-05-01 10:00;00123;1.5\n2;;00456;2\n"
    shown = load(text, "--table shop.new --dry-run").expect(0, "separated by semicolons")
    statement = "CREATE TABLE shop.new (\n    id integer,\n    started_at timestamp,\n    zip_code text,\n"
    assert statement + '    "order" double precision\n);' in shown.out
    assert value(application, "SELECT to_regclass('shop.new')::text") is None
    chosen = load(text, "--table shop.new --columns Id,order --type order=numeric(5,2) --json")
    assert chosen.json["statements"][0] == 'CREATE TABLE shop.new (\n    id integer,\n    "order" numeric(5,2)\n);'
    assert rows(application, 'SELECT id, "order" FROM shop.new ORDER BY 1')[0] == {
        "id": 1,
        "order": decimal.Decimal("1.50"),
    }


def test_a_table_that_exists_is_added_to_or_replaced_on_request_only(
    load: Any, shop: Database, application: Connection
) -> None:
    shop.create()
    before = value(application, "SELECT count(*) FROM shop.views")
    more = "view_count,user_id,product_id\n5,1000,1\n6,1000,2\n"
    load(more, "--table shop.views").expect(2, "--append", "--replace")
    assert load(more, "--table shop.views --append").code == 0
    assert value(application, "SELECT count(*) FROM shop.views") == before + 2
    doubled = load(more, "--table shop.views --append")
    assert "line 2 of" in doubled.err
    assert "(user_id, product_id)=(1000, 1) already exists" in doubled.err
    assert load(more, "--table shop.views --replace").code == 2  # nobody can be asked
    assert load("1,1\n", "--table shop.views --replace --yes --columns user_id,view_count").code == 2
    missing = load("user_id,product_id\n1,1\n", "--table shop.views --replace --yes")
    assert "shop.views needs a value of view_count" in missing.err
    assert value(application, "SELECT count(*) FROM shop.views") == before + 2
    assert "no row to load" in load("user_id,product_id,view_count\n", "--table shop.views --replace --yes").err
    # without names by position; the recommender's view over the table is still there
    assert load("7,8,9\n", "--table shop.views --replace --yes").code == 0
    assert [tuple(row.values()) for row in rows(shop.connect(), "SELECT * FROM retail.interactions")] == [(7, 8, 9)]


def test_doubles_of_a_primary_key_are_told(load: Any, application: Connection) -> None:
    load("a,b\n1,1\n1,1\n2,1\n", "--table shop.keyed --primary-key a,b").expect(
        1, "1 keys (a, b) occur more than once: (1, 1) 2 times"
    )
    assert value(application, "SELECT to_regclass('shop.keyed')::text") is None


def test_recstores_own_schemas_take_no_file(shop: Database, recstore: Command, tmp_path: Path) -> None:
    shop.create()
    file = tmp_path / "views.csv"
    file.write_text("user_id,product_id\n1,1\n")
    worker = shop.connect()
    for schema in ("recstore", "retail"):
        worker.execute(f"ALTER ROLE CURRENT_USER IN DATABASE {shop.name} SET search_path = {schema}")
        for line in ("--table x", f"--table {schema}.x", "--table recstore_private.alembic_version --append"):
            recstore(f"load {file} {line} --yes").expect(2, "belongs to recstore")
        assert value(worker, f"SELECT to_regclass('{schema}.x')::text") is None
    worker.execute("CREATE SCHEMA own")
    worker.execute(f"ALTER ROLE CURRENT_USER IN DATABASE {shop.name} SET search_path = own")
    assert recstore(f"load {file} --table x --yes").code == 0
    assert value(worker, "SELECT count(*) FROM own.x") == 1


def test_readers_see_the_old_rows_while_they_are_replaced(
    shop: Database, application: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, seen = shop.connect(), []
    reader.execute("SET statement_timeout = '5s'")
    writer = shop.connect("application")
    writer.execute("SET lock_timeout = '50ms'")
    before = value(reader, "SELECT count(*) FROM shop.views")
    file = tmp_path / "views.csv"
    file.write_text("user_id,product_id,view_count\n" + "".join(f"{n},1,1\n" for n in range(50)))

    def look() -> None:
        seen.append(value(reader, "SELECT count(*) FROM shop.views"))
        with pytest.raises(psycopg.errors.LockNotAvailable):
            writer.execute("INSERT INTO shop.views VALUES (999, 1, 1)")

    def interrupt() -> None:
        raise KeyboardInterrupt

    load_in(application, file, Wanted("shop.views", "replace"), look)
    assert set(seen) == {before}
    assert value(reader, "SELECT count(*) FROM shop.views") == 50

    monkeypatch.setattr(writing, "LOCK_SECONDS", 0.1)
    with writer.transaction(force_rollback=True):
        writer.execute("DELETE FROM shop.views WHERE user_id = 1")
        with pytest.raises(LoadRefused, match="have been writing"):
            load_in(application, file, Wanted("shop.views", "replace"))
    with pytest.raises(LoadInterrupted, match="Nothing was written"):
        load_in(application, file, Wanted("shop.views", "replace"), interrupt)
    with pytest.raises(LoadInterrupted):
        load_in(application, file, Wanted("shop.fresh"), interrupt)
    assert value(application, "SELECT count(*) FROM shop.views") == 50
    assert value(application, "SELECT to_regclass('shop.fresh')::text") is None
    application.execute("ALTER TABLE shop.views ADD CHECK (view_count < 9)")
    file.write_text("1,1,1\n2,1,10\n")
    with pytest.raises(LoadRefused, match="line 2 of"):
        load_in(application, file, Wanted("shop.views", "replace"))
    assert value(application, "SELECT count(*) FROM shop.views") == 50


def test_replacing_never_reaches_rows_of_other_tables(load: Any, application: Connection) -> None:
    application.execute("CREATE TABLE shop.stock (product_id integer REFERENCES shop.products ON DELETE CASCADE)")
    application.execute("INSERT INTO shop.stock VALUES (1)")
    products = "product_id,title\n1,a\n2,b\n"
    refused = load(products, "--table shop.products --replace --yes")
    assert "Rows of shop.stock follow" in refused.err
    application.execute("DROP TABLE shop.stock")
    application.execute("CREATE TABLE shop.stock (product_id integer REFERENCES shop.products)")
    application.execute("INSERT INTO shop.stock VALUES (1)")
    assert "Other rows refer to those" in load(products, "--table shop.products --replace --yes").err
    assert value(application, "SELECT count(*) FROM shop.products") == 120
    application.execute("CREATE TABLE shop.old (a int); CREATE TABLE shop.older () INHERITS (shop.old)")
    application.execute("INSERT INTO shop.older VALUES (1)")
    assert "shop.older are rows of shop.old by" in load("a\n2\n", "--table shop.old --replace --yes").err
    assert load("a\n2\n", "--table shop.old --append").code == 0
    assert column(application, "SELECT a FROM shop.old ORDER BY 1") == [1, 2]


@pytest.mark.parametrize(
    "kept",
    [
        "CREATE TRIGGER soft BEFORE DELETE ON shop.t FOR EACH ROW EXECUTE FUNCTION shop.nothing()",
        "CREATE RULE soft AS ON DELETE TO shop.t DO INSTEAD NOTHING",
        "CREATE TRIGGER elsewhere BEFORE INSERT ON shop.t FOR EACH ROW EXECUTE FUNCTION shop.nothing()",
    ],
)
def test_a_table_whose_own_rules_keep_rows_is_not_replaced(kept: str, load: Any, application: Connection) -> None:
    application.execute("CREATE FUNCTION shop.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    application.execute("CREATE TABLE shop.t AS SELECT 1 AS id")
    application.execute(kept)
    load("id\n2\n3\n", "--table shop.t --replace --yes").expect(1, "of its own")
    assert column(application, "SELECT id FROM shop.t") == [1]
    appended = load("id\n2\n3\n", "--table shop.t --append --yes")
    assert (appended.code, "of 2 rows it took 0" in appended.err) == (0, "INSERT" in kept), appended.err


def test_ids_that_a_sequence_gives_too(load: Any, application: Connection) -> None:
    application.execute('CREATE TABLE shop.t (id int PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, "a b" text)')
    loaded = load("id,a b\n1,x\n2,y\n", "--table shop.t --append --yes").expect(0)
    application.execute(" ".join(loaded.err.split()).partition("run: ")[2].partition(";")[0])
    assert column(application, """INSERT INTO shop.t ("a b") VALUES ('z') RETURNING id""") == [3]


def test_what_copy_does_not_take(load: Any, application: Connection) -> None:
    application.execute("CREATE TABLE shop.t (id int)")
    application.execute("ALTER TABLE shop.t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    for answer, told in (
        (load("id\n1\n", "--table shop.t --append --yes"), "row-level security for the role application"),
        (load("ctid\n1\n", "--table shop.n --yes"), "keeps the column name 'ctid' for itself"),
        (
            load(",".join(f"c{n}" for n in range(1600)) + "\n" + ",".join("1" * 1600) + "\n", "--table shop.n --yes"),
            "at most 1,599",
        ),
        (load("id\n1\n", "--table shop.n --yes --type id=void"), "knows no type 'void' here"),
        (load("id\n1\n", "--table shop.n --yes --encoding rot13"), "'rot13' is no encoding"),
        (load("id\n1\n", "--table shop.n --yes --encoding base64"), "'base64' is no encoding"),
    ):
        assert (answer.code, told in " ".join(answer.err.split())) == (2, True), answer.err


def test_the_bad_lines_are_never_written_over_the_file(load: Any, tmp_path: Path) -> None:
    file = tmp_path / "views.csv"
    other = tmp_path / "other.csv"
    other.symlink_to(file)
    for bad in (file, other):
        refused = load(BAD, "--table shop.bad --dry-run", "--bad", str(bad))
        assert (refused.code, file.read_bytes()) == (2, BAD.encode())
        assert "the file that is loaded" in refused.err


@pytest.mark.parametrize("what", ["interrupt", "lock"])
def test_statistics_that_are_cut_short_are_a_warning(
    what: str, shop: Database, application: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    application.execute("CREATE TABLE shop.counted (a int)")
    file = tmp_path / "counted.csv"
    file.write_text("1\n2\n")
    execute = psycopg.Connection.execute

    def interrupted(connection: Any, statement: Any, *arguments: Any, **options: Any) -> Any:
        if "ANALYZE" in repr(statement):
            raise KeyboardInterrupt
        return execute(connection, statement, *arguments, **options)

    watching = Hook()
    with opened(str(file)) as found, shop.connect("application") as other:
        plan = examine(application, found, Wanted("shop.counted", "append"), watching)
        if what == "interrupt":
            monkeypatch.setattr(psycopg.Connection, "execute", interrupted)
        else:
            monkeypatch.setattr(writing, "LOCK_SECONDS", 0.1)
            watching.on_progress = lambda _: (
                other.execute("BEGIN; LOCK TABLE shop.counted IN SHARE UPDATE EXCLUSIVE MODE") and None
            )
        assert write(application, plan, watching) == 2
        other.rollback()
    assert ["The 2 rows are in shop.counted;" in one for one in watching.warnings] == [True]
    assert value(application, "SELECT count(*) FROM shop.counted") == 2
    assert value(application, "SHOW lock_timeout") == "0"


def test_types_with_a_length_inside(load: Any, application: Connection) -> None:
    kinds = {"at": "timestamp(3)", "zoned": "timestamptz(3)", "prices": "numeric(10,2)[]", "code": " varchar(3) "}
    given = [part for name, kind in kinds.items() for part in ("--type", f"{name}={kind}")]
    line = '2024-05-01 10:00:00.1234,2024-05-01 10:00Z,"{1.234}",abc\n'
    load("at,zoned,prices,code\n" + line, "--table shop.precise", *given).expect(0)
    oid = "'shop.precise'::regclass"
    types = f"SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = {oid} AND attnum > 0 ORDER BY attnum"
    assert column(application, types) == [
        "timestamp(3) without time zone",
        "timestamp(3) with time zone",
        "numeric(10,2)[]",
        "character varying(3)",
    ]
    application.execute("CREATE TABLE shop.codes (codes varchar(3)[])")
    load('codes\n"{a,abc}"\n', "--table shop.codes --append").expect(0)


def test_the_tables_own_types_decide(load: Any, application: Connection) -> None:
    application.execute("CREATE DOMAIN shop.percent AS int CHECK (VALUE BETWEEN 0 AND 100)")
    application.execute(
        "CREATE TABLE shop.strict (id bigint NOT NULL, code varchar(3), price numeric(4,2), day date, tags text[],"
        " share shop.percent, twice bigint GENERATED ALWAYS AS (id * 2) STORED)"
    )
    good = "id,code,price,day,tags,share\n 1 ,abc,12.345,May 1 2024,{},100\n"
    bad = 'x,,,,,\n,,,,,\n4,abcd,,,,\n5,,100,,,\n6,,,2024-02-30,,\n7,,,,{a,\n8,,,,,101\n9,"",,"",,""\n'
    answer = load(good + bad, "--table shop.strict --append --json")
    assert answer.json["bad_lines"] == [3, 4, 5, 6, 7, 8, 9]
    assert answer.json["reasons"][1]["reason"] == "id is empty"
    assert load(good + bad, "--table shop.strict --append --max-bad 7").code == 0
    found = [tuple(row.values()) for row in rows(application, "SELECT * FROM shop.strict ORDER BY id")]
    assert found == [
        (1, "abc", decimal.Decimal("12.35"), datetime.date(2024, 5, 1), [], 100, 2),
        (9, "", None, None, None, None, 18),
    ]
    own = load("id,twice\n1,2\n", "--table shop.strict --append")
    assert "computes that column itself" in own.err


def test_parquet_brings_its_types(load: Any, application: Connection, tmp_path: Path) -> None:
    one = uuid.uuid4()
    time = datetime.datetime(2024, 1, 2, 3, 4, 5, 678)
    table = pa.table(
        {
            "bytes": pa.array([one.bytes, None], pa.binary(16)),
            "written": [str(one), None],
            "price": pa.array([decimal.Decimal("1.50"), None]),
            "local": pa.array([time, None], pa.timestamp("ns")),
            "zoned": pa.array([time, None], pa.timestamp("ms", "Europe/Madrid")),
            "name": pa.array(["tab\t\\N", ""]).dictionary_encode(),
            "count": pa.array([1, None], pa.uint32()),
            "nested": [[1], []],
            "took": pa.array([1, None], pa.duration("s")),
        }
    )
    pq.write_table(table, tmp_path / "a", compression="zstd")
    content = (tmp_path / "a").read_bytes()
    for left in ("nested", "took"):
        refused = load(content, f"--table shop.parquet --columns bytes,{left}", name="views.parquet")
        assert f"'{left}' of" in refused.err
    assert "duration[s]" in refused.err
    chosen = "bytes,written,price,local,zoned,name,count"
    answer = load(content, f"--table shop.parquet --columns {chosen} --json", name="views.parquet").expect(0)
    types = [
        "uuid",
        "uuid",
        "numeric(3,2)",
        "timestamp without time zone",
        "timestamp with time zone",
        "text",
        "bigint",
    ]
    assert [one["type"] for one in answer.json["columns"]] == types
    first, second = (tuple(row.values()) for row in rows(application, "SELECT * FROM shop.parquet ORDER BY price"))
    assert first[:4] + first[5:] == (one, one, decimal.Decimal("1.50"), time, "tab\t\\N", 1)
    assert first[4] == time.replace(microsecond=0, tzinfo=datetime.UTC)
    assert second == (None, None, None, None, None, "", None)


def test_parquet_goes_into_a_text_column_as_it_is(load: Any, application: Connection, tmp_path: Path) -> None:
    application.execute("CREATE TABLE shop.texts (a text NOT NULL)")
    texts = [str(uuid.uuid4()), ""]
    pq.write_table(pa.table({"a": texts}), tmp_path / "a")
    answer = load((tmp_path / "a").read_bytes(), "--table shop.texts --append --json", name="texts.parquet").expect(0)
    assert answer.json["columns"][0]["type"] == "text"
    assert column(application, "SELECT a FROM shop.texts ORDER BY a DESC") == texts


def test_standard_input(recstore: Command, shop: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("1;é\n".encode("latin-1"))))
    recstore("load - --table shop.piped --encoding latin-1 --columns id,name", url=shop.url_of("application")).expect(0)
    assert column(shop.connect("application"), "SELECT name FROM shop.piped") == ["é"]


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6) | st.sampled_from(
    ["", "\\N", "\\.", '"', "''", ",;\t|", "a\nb", "\\", "\\\\", "NULL", "007"]
)
MARKS = st.permutations([",", ";", "\t", "|", '"', "'", "\\", "/", "~"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(TEXT, min_size=width, max_size=width), min_size=1, max_size=20)
    ),
    marks=MARKS,
    kind=st.sampled_from(["doubled", "all", "escaped", "both", "unquoted"]),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_rows_that_pythons_csv_writes_come_back_from_postgres(
    table: list[list[str]], marks: list[str], kind: str, ending: str, application: Connection, tmp_path: Path
) -> None:
    """With any delimiter, quote and escape character. Unquoted, an empty text is NULL."""
    delimiter, quote, escape, *_ = marks
    options: dict[str, Any] = {"delimiter": delimiter, "quotechar": quote, "lineterminator": ending}
    if kind in ("escaped", "both", "unquoted"):
        options |= {"escapechar": escape, "doublequote": kind == "both"}
    if kind == "unquoted":
        table = [[text or "empty" for text in row] for row in table]
    quoting = {"all": csv.QUOTE_ALL, "unquoted": csv.QUOTE_NONE}.get(kind, csv.QUOTE_MINIMAL)
    file = tmp_path / "rows.csv"
    with file.open("w", newline="", encoding="utf-8") as text:
        csv.writer(text, quoting=quoting, **options).writerows(table)
    given = TextOptions(delimiter, quote, escape if "escapechar" in options else "none", "utf-8", False)
    if kind == "unquoted":
        given = TextOptions(delimiter, "none", escape, "utf-8", False)
    names = [f"c{n}" for n in range(len(table[0]))]
    application.prepare_threshold = None  # the table is another one each time
    application.execute("DROP TABLE IF EXISTS shop.rows")
    wanted = Wanted("shop.rows", text=given, columns=names, types=dict.fromkeys(names, "text"))
    plan = load_in(application, file, wanted)
    assert not len(plan.bad)
    found = [list(row.values()) for row in rows(application, "SELECT * FROM shop.rows ORDER BY ctid")]
    assert [[text or "" for text in row] for row in found] == table
    if kind == "all":
        assert found == table
