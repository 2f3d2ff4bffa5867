"""The form of a file: records and their lines, dialect, header, encoding, compression. No database."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recstore.errors import InvalidInput, ReportNotWritten
from recstore.files import delimited
from recstore.files.delimited import Dialect, TextForm, read_records
from recstore.files.load.bad_lines import BadLines, allowed, ranges
from recstore.files.load.text import TextOptions, open_text
from recstore.files.opening import OpenedFile, TextDecoding, opened


def found(text: str, dialect: Dialect | None = None) -> list[tuple[int, list[str] | str]]:
    """(line, fields or the reason why there are none) of each record."""
    return [(line, fields) for line, _, fields in read_records(io.StringIO(text, newline="\n"), dialect or Dialect())]


def test_the_line_of_a_record_is_the_one_it_begins_on() -> None:
    text = 'a,b\r\n1,"two\r\n\r\nlines"\r\n\r\n2,"say ""x"""\r\n3,4'
    assert found(text) == [(1, ["a", "b"]), (2, ["1", "two\r\n\r\nlines"]), (6, ["2", 'say "x"']), (7, ["3", "4"])]


@pytest.mark.parametrize("quoted", [False, True])
def test_a_broken_record_costs_its_own_line_only(quoted: bool) -> None:
    broken = {
        2: ('2,"b" c', "a quote in the middle of a field"),
        4: ('4,e"f', "a quote in the middle of a field"),
        5: ('5,"never closed', "a quote that is not closed"),
        7: ("7,a\rb", "a carriage return in the middle"),
        9: ('9,"last', "a quote that is not closed"),
    }
    lines = [broken[n][0] if n in broken else f'{n},"x"' if quoted else f"{n},x" for n in range(1, 10)]
    assert found("\n".join(lines)) == [(n, broken[n][1] if n in broken else [str(n), "x"]) for n in range(1, 10)]


def test_a_quote_that_is_never_closed_does_not_swallow_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "LONGEST", 1000)
    words = found('1,"a\n' + "".join(f"{n},b\n" for n in range(2, 2000)))
    assert words[0] == (1, "a quote that is not closed")
    assert [line for line, _ in words] == list(range(1, 2000))


def test_escapes_hold_in_and_out_of_quotes() -> None:
    dialect = Dialect(",", '"', "\\")
    assert found('a\\,b,c\\\nd\n"e\\"f",\\\\\n', dialect) == [(1, ["a,b", "c\nd"]), (3, ['e"f', "\\"])]
    assert dialect.quoted('"e\\"",,",",x\\"\n') == [True, False, True, False]


def form_of(text: bytes, name: str = "views.csv", known: Collection[str] = (), **given: Any) -> TextForm:
    file = OpenedFile(name, Path("/dev/stdin"), len(text), None, False)
    file.reading = lambda: contextlib.nullcontext(io.BytesIO(text))  # type: ignore[method-assign]
    return open_text(file, TextOptions(**given), [""], list(known)).form


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
        ("a.dat", b"1::1193::5\n1::661::3\n", "::", '"', None),
        ("a.csv", b"user,item,\n1,2,\n3,4,\n", ",", '"', ("user", "item", "")),
        ("a.csv", b"user,item\n1,2,\n3,4,\n", ",", '"', ("user", "item", "")),
        ("a.csv", b"user,item\n1,2,\n3,4,x\n", ",", '"', None),
        ("a.csv", b'id,size\n1,5" x\n2,6" x\n3,7" x\n4,8" x\n5,9" x\n', ",", None, ("id", "size")),
        ("a.csv", b'id,size\n1,"a"\n2,6" x\n3,"b"\n4,8" x\n5,9" x\n', ",", '"', ("id", "size")),
    ],
)
def test_what_a_file_is_comes_from_its_first_lines(
    name: str, text: bytes, delimiter: str, quote: str | None, names: tuple[str, ...] | None
) -> None:
    form = form_of(text, name)
    assert (form.names, form.dialect.quote) == (names, quote)
    assert form.fields == 1 or form.dialect.delimiter == delimiter


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a", b"1 2 3\n4 5 6\n", "hold several values. .* --delimiter space"),
        ("a.csv.gz", b"red 12\nblue 13\n", "--delimiter space"),
        ("a.txt", b"a,b\n1,2,3\n4,5\n6\n7,8,9,0\n", "hold commas. .* --delimiter comma"),
        ("a.csv", b"a,b\n1,red\n2,blue\nor\ngreen\nor\npink\n", "hold commas"),
        ("a.txt", b"1|2|'a|b|c'\n1|2|'a|b'\n1|2|'a'\n", "hold bars. .* --delimiter bar"),
    ],
)
def test_several_values_of_a_line_are_never_taken_for_one_text(name: str, text: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        form_of(text, name)
    assert form_of(text, name, delimiter="^").fields == 1


def test_a_header_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"header of views.csv is not utf-8 text.* --encoding latin-1"):
        form_of("café_id,item_id\n1,2\n".encode("latin-1"))


def test_what_the_person_says_of_a_file_holds() -> None:
    assert form_of(b"a,b\n1,2\n", header=False).names is None
    assert form_of(b"1,2\n3,4\n", header=True).names == ("1", "2")
    assert form_of(b"'a,b',1\n'c,d',2\n", quote="'").fields == 2
    assert form_of(b'"a\\"b",1\n"c",2\n').dialect.escape == "\\"
    assert form_of(b"x,y\na,b\n", known=["y", "x"]).names == ("x", "y")
    with pytest.raises(InvalidInput, match="one ASCII character"):
        form_of(b"a,b\n", delimiter="ab")
    with pytest.raises(InvalidInput, match="no line"):
        form_of(b"\n\n")


PACKERS = {"csv": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress} | {
    codec: partial(pa.compress, codec=codec, asbytes=True) for codec in ("zstd", "lz4")
}


@pytest.mark.parametrize("kind", PACKERS)
def test_a_packed_file_is_found_by_what_is_in_it_and_read_twice(kind: str, tmp_path: Path) -> None:
    text = b"".join(b"%d,%d\n" % (n, n) for n in range(100_000))
    file = tmp_path / "data"
    file.write_bytes(PACKERS[kind](b"\xef\xbb\xbf" + text))
    with opened(str(file)) as one:
        for _ in range(2):
            assert "".join(TextDecoding.of(one, None).lines()).encode() == text
        assert one.position() == one.size


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04....", "zip archive"),
        (b"", "is empty"),
        (gzip.compress(b"1,2\n" * 100000)[:200], "cannot be read to its end"),
    ],
)
def test_what_can_not_be_loaded_is_a_sentence(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=words), opened(str(file)) as one:
        list(TextDecoding.of(one, None).lines())


def test_encodings(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_bytes("é,1\n".encode("utf-16"))
    with opened(str(file)) as one:
        assert list(TextDecoding.of(one, None).lines()) == ["é,1\n"]
    file.write_bytes("é,1\n".encode("latin-1"))
    with opened(str(file)) as one:
        assert list(TextDecoding.of(one, "latin-1").lines()) == ["é,1\n"]
        with pytest.raises(InvalidInput, match="is no encoding"):
            TextDecoding.of(one, "klingon")


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
    cases = [("3", 3), (3.0, 3), ("1%", 0.01), ("0.01", 0.01), (1e-5, 1e-5), ("1.0", 1.0), ("100%", 1.0), ("0", 0)]
    for written, found in cases:
        assert (allowed(written), type(allowed(written))) == (found, type(found))
    for wrong in ("-1", "many", "200%", "nan", "1e400", float("inf")):
        with pytest.raises(InvalidInput, match="--max-bad"):
            allowed(wrong)
    assert ranges([3, 7, 8, 9, 12]) == "3, 7-9, 12"
    assert ranges(list(range(0, 200, 2)), most=2) == "0, 2 and 98 more"
