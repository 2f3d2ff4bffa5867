"""What a file is found to be: records and their lines, dialect, header, types. No database."""

import bz2
import gzip
import io
import lzma
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recstore.errors import InvalidInput, ReportNotWritten
from recstore.files.load import records as records_module
from recstore.files.load.bad_lines import Allowed, BadLines, ranges
from recstore.files.load.kinds import Tally, surely_fit
from recstore.files.load.layout import Given, Layout, sniff
from recstore.files.load.opening import opened, text_pieces
from recstore.files.load.records import Dialect, TooLong, read_records, to_columns


def found(text: bytes, dialect: Dialect | None = None, step: int = 7) -> list[tuple[int, list[str] | str]]:
    """(line, fields or the reason why there are none) of each record; the text comes in pieces of `step` bytes."""
    dialect = dialect or Dialect()
    told: list[tuple[int, list[str] | str]] = []
    for part in read_records(iter([text[n : n + step] for n in range(0, len(text), step)]), dialect):
        if isinstance(part, TooLong):
            told.append((part.line, part.reason))
            continue
        told += [(int(part.lines[index]), reason) for index, reason in part.broken.items()]
        for index in np.flatnonzero(part.usable):
            keep = np.zeros(len(part), np.bool_)
            keep[index] = True
            columns = to_columns(part.take(keep), dialect, int(part.fields[index]), 1, [])
            told.append((int(part.lines[index]), [column[0].as_py() for column in columns]))
    return sorted(told, key=lambda one: one[0])


@pytest.mark.parametrize("piece", [3, 20, 1 << 20])
def test_the_line_of_a_record_is_the_one_it_begins_on(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "PIECE", piece)
    text = b'a,b\r\n1,"two\r\n\r\nlines"\r\n\r\n2,"say ""x"""\r\n3,4'
    assert found(text) == [(1, ["a", "b"]), (2, ["1", "two\r\n\r\nlines"]), (6, ["2", 'say "x"']), (7, ["3", "4"])]


def test_a_broken_quote_costs_its_own_line_only() -> None:
    text = b'1,a\n2,"b" c\n3,d\n4,e"f\n5,"never closed\n6,g\n7,"h"\n8,i\n'
    assert found(text) == [
        (1, ["1", "a"]),
        (2, "a quote in the middle of a field"),
        (3, ["3", "d"]),
        (4, "a quote in the middle of a field"),
        (5, "a quote that is not closed"),
        (6, ["6", "g"]),
        (7, ["7", "h"]),
        (8, ["8", "i"]),
    ]


def test_a_quote_that_is_never_closed_does_not_swallow_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "LONGEST", 1000)
    monkeypatch.setattr(records_module, "PIECE", 100)
    told = found(b'1,"a\n' + b"".join(b"%d,b\n" % n for n in range(2, 2000)), step=100)
    assert told[0] == (1, "a quote that is not closed")
    assert [line for line, _ in told] == list(range(1, 2000))


def test_escapes_hold_in_and_out_of_quotes() -> None:
    assert found(b'a\\,b,c\\\nd\n"e\\"f",\\\\\n', Dialect(",", '"', "\\")) == [(1, ["a,b", "c\nd"]), (3, ['e"f', "\\"])]


def layout_of(text: bytes, name: str = "views.csv", **given: object) -> Layout:
    return sniff(name, iter([text]), Given(**given), "utf-8")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text", "delimiter", "quote", "names"),
    [
        ("a.csv", b"user_id,item\n1,a\n2,b\n", ",", '"', ("user_id", "item")),
        ("a.csv", b"1,2\n3,4\n", ",", '"', None),
        ("a.txt", b"1;2,5\n3;4,5\n", ";", '"', None),
        ("a.tsv", b'id\ttitle\n1\t5" disk, flat\n2\tb,c\n', "\t", None, ("id", "title")),
        ("a.psv", b"1|a,b\n2|c,d\n", "|", '"', None),
        ("a.csv", b'"a;b",1\n"c;d",2\n', ",", '"', None),
        ("a.csv", b"alice,apple\nbob,pear\n", ",", '"', None),
        ("a.csv", b"user,item\nbob,pear\n", ",", '"', ("user", "item")),
        ("a.csv", b"count,count\n1,2\n", ",", '"', ("count", "count")),
        ("a.csv", b"pear,pear\nfig,plum\n", ",", '"', None),
        ("a.csv", b'u,i,n\n1,2,3\n1,2\n1,2,3,4\n1,"2,3\n4,5,6\n' + b"7,8,9\n" * 3, ",", '"', ("u", "i", "n")),
        ("a.csv", b"# by hand\nuser_id,item_id\n1,2\n", ",", '"', ("user_id", "item_id")),
        ("a.csv", b"sep=;\r\nid;price\r\n1;2,5\r\n", ";", '"', ("id", "price")),
        ("a.txt", b"title\nred shoe\nblue, or green\nblack shoe\n", ",", '"', ("title",)),
        ("a.csv", b'title\n"red, and blue"\n"green shoe"\n', ",", '"', ("title",)),
        ("a.csv", b"2024-05-01 10:00\n2024-05-02 10:00\n", ",", '"', None),
        ("a.csv", b"visitor\n7\n8\n", ",", '"', ("visitor",)),
        ("a.csv", b'id,size\n1,5" x\n2,6" x\n3,7" x\n4,8" x\n5,9" x\n', ",", None, ("id", "size")),
        ("a.csv", b'id,size\n1,"a"\n2,6" x\n3,"b"\n4,8" x\n5,9" x\n', ",", '"', ("id", "size")),
    ],
)
def test_what_a_file_is_comes_from_its_first_lines(
    name: str, text: bytes, delimiter: str, quote: str | None, names: tuple[str, ...] | None
) -> None:
    layout = layout_of(text, name)
    assert (layout.names, layout.dialect.quote) == (names, quote)
    assert layout.fields == 1 or layout.dialect.delimiter == delimiter


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a", b"1 2 3\n4 5 6\n", "hold several values. .* --delimiter space"),
        ("a.dat", b"1::1193::5\n1::661::3\n", "--delimiter ':'"),
        ("a.csv.gz", b"red 12\nblue 13\n", "--delimiter space"),
        ("a.txt", b"a,b\n1,2,3\n4,5\n6\n7,8,9,0\n", "hold commas. .* --delimiter comma"),
        ("a.csv", b"a,b\n1,red\n2,blue\nor\ngreen\nor\npink\n", "hold commas"),
        ("a.txt", b"1|2|'a|b|c'\n1|2|'a|b'\n1|2|'a'\n", "hold bars. .* --delimiter bar"),
    ],
)
def test_several_values_of_a_line_are_never_taken_for_one_text(name: str, text: bytes, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        layout_of(text, name)
    assert layout_of(text, name, delimiter="^").fields == 1


def test_a_header_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"header of views.csv is not utf-8 text.* --encoding latin-1"):
        layout_of("café_id,item_id\n1,2\n".encode("latin-1"))


def test_what_the_person_says_of_a_file_holds() -> None:
    assert layout_of(b"a,b\n1,2\n", header=False).names is None
    assert layout_of(b"1,2\n3,4\n", header=True).names == ("1", "2")
    assert layout_of(b"'a,b',1\n'c,d',2\n", quote="'").fields == 2
    assert layout_of(b'"a\\"b",1\n"c",2\n').dialect.escape == "\\"
    assert sniff("a", iter([b"x,y\na,b\n"]), Given(), "utf-8", ["y", "x"]).names == ("x", "y")
    with pytest.raises(InvalidInput, match="one ASCII character"):
        layout_of(b"a,b\n", delimiter="::")
    with pytest.raises(InvalidInput, match="no line"):
        layout_of(b"\n\n")


@pytest.mark.parametrize(
    ("values", "type"),
    [
        (["1", "-2", "2147483647"], "integer"),
        (["1", "2147483648"], "bigint"),
        (["1", "9223372036854775808"], "text"),
        (["1", "00123"], "text"),
        (["1", "2.5", "1e-3"], "double precision"),
        (["0.30000000000000004", "0.10000000000000001", "1.00000000000000000000", ".5e3"], "double precision"),
        (["9007199254740993", "1.5"], "numeric"),
        (["12345678901234567.89"], "numeric"),
        (["1234567890123456.7"], "numeric"),
        (["true", "F"], "boolean"),
        (["2024-02-29"], "date"),
        (["2024-02-30"], "text"),
        (["2024-12-31 23:59:59.123456000"], "timestamp"),
        (["2024-12-31 23:59:59.9999999"], "text"),
        (["2024-02-29", "2024-03-01 10:00:00.5"], "timestamp"),
        (["2024-03-01T10:00:00Z", "2024-03-01 10:00+02:00"], "timestamptz"),
        (["2024-03-01T10:00:00Z", "2024-03-01 10:00"], "text"),
        (["123e4567-e89b-12d3-a456-426614174000"], "uuid"),
        (["1", "x"], "text"),
        (["1"] * 99 + ["x"], "integer"),
        ([], "text"),
    ],
)
def test_a_column_has_the_narrowest_type_that_loses_nothing(values: list[str], type: str) -> None:
    tally = Tally()
    for start in range(0, len(values), 50):  # added up batch by batch
        batch = values[start : start + 50]
        tally.add(pa.array(batch, pa.string()), np.arange(start, start + len(batch)))
    assert tally.narrowest() == type
    if "x" in values and type != "text":
        assert tally.texts == [(99, "x")]


@pytest.mark.parametrize(
    ("values", "type"),
    [
        (["1", " 2", "3 "], "integer"),
        ([" 1.5", " 2"], "double precision"),
        ([" 2024-01-31"], "date"),
        (["1", "18446744073709551615"], "numeric"),
        (["1", "18446744073709551615", " 2.5"], "numeric"),
        (["1", "00123"], None),
        (["1", " +2"], None),
        ([" 123e4567-e89b-12d3-a456-426614174000"], None),
        (["a", " 2"], None),
    ],
)
def test_what_a_text_column_might_be_meant_as(values: list[str], type: str | None) -> None:
    tally = Tally()
    tally.add(pa.array(values, pa.string()), np.arange(len(values)))
    assert tally.narrowest() == "text"
    assert (tally.meant() or (None, ""))[0] == type


def test_only_what_is_sure_is_not_asked_of_the_server() -> None:
    values = pa.array(["1", "32768", "007", " 1", "abcd"])
    assert surely_fit(values, "smallint").tolist() == [True, False, False, False, False]
    assert surely_fit(values, "character varying(3)").tolist() == [True, False, True, True, False]
    assert surely_fit(values, "character varying(3)[]").tolist() == [False] * 5
    assert surely_fit(values, "jsonb").tolist() == [False] * 5


PACKERS = {
    "csv": lambda data: data,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: pa_compressed("zstd", data),
    "lz4": lambda data: pa_compressed("lz4", data),
}


def pa_compressed(codec: str, data: bytes) -> bytes:
    packed = io.BytesIO()
    with pa.CompressedOutputStream(packed, codec) as stream:
        stream.write(data)
        stream.flush()
        return packed.getvalue() if stream.closed else _closed(stream, packed)


def _closed(stream: pa.CompressedOutputStream, packed: io.BytesIO) -> bytes:
    packed.close = lambda: None  # type: ignore[method-assign]
    stream.close()
    return packed.getvalue()


@pytest.mark.parametrize("kind", PACKERS)
def test_a_packed_file_is_found_by_what_is_in_it_and_read_twice(kind: str, tmp_path: Path) -> None:
    text = b"".join(b"%d,%d\n" % (n, n) for n in range(100_000))
    file = tmp_path / "data"
    file.write_bytes(PACKERS[kind](b"\xef\xbb\xbf" + text))
    with opened(str(file)) as one:
        for _ in range(2):
            assert b"".join(text_pieces(one, None)) == text
        assert one.position() == one.size


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04....", "zip archive"),
        (b"", "is empty"),
        (gzip.compress(b"1,2\n" * 100000)[:200], "can not be read to its end"),
    ],
)
def test_what_can_not_be_loaded_is_a_sentence(content: bytes, told: str, tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=told), opened(str(file)) as one:
        list(text_pieces(one, None))


def test_encodings(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_bytes("é,1\n".encode("utf-16"))
    with opened(str(file)) as one:
        assert b"".join(text_pieces(one, None)) == "é,1\n".encode()
    file.write_bytes("é,1\n".encode("latin-1"))
    with opened(str(file)) as one:
        assert b"".join(text_pieces(one, "latin-1")) == "é,1\n".encode()
        with pytest.raises(InvalidInput, match="no encoding"):
            list(text_pieces(one, "klingon"))


def test_the_file_of_bad_lines_is_whole_or_as_it_was(tmp_path: Path) -> None:
    file, pipe = tmp_path / "bad.csv", tmp_path / "pipe"
    file.write_text("former")
    os.mkfifo(pipe)
    with pytest.raises(UnicodeEncodeError):
        BadLines(reasons={1: "wrong" * 10_000, 2: "\udcff"}).write(file)
    with pytest.raises(ReportNotWritten, match="no ordinary file"):
        BadLines(reasons={1: "wrong"}).write(pipe)
    assert (file.read_text(), pipe.is_fifo(), len(list(tmp_path.iterdir()))) == ("former", True, 2)


def test_how_many_bad_lines_are_allowed() -> None:
    assert Allowed.parse("3").of(1000) == 3
    assert Allowed.parse(str(1e-5)).share == 1e-5
    assert Allowed.parse("1%").of(1000) == Allowed.parse("0.01").of(1000) == 10
    for wrong in ("-1", "many", "200%"):
        with pytest.raises(InvalidInput, match="--max-bad"):
            Allowed.parse(wrong)
    assert ranges(np.array([3, 7, 8, 9, 12])) == "3, 7-9, 12"
    assert ranges(np.arange(0, 200, 2), most=2) == "0, 2 and 98 more"
