"""Split files in the forms they are published in, and a sentence with file and line for each that is wrong."""

import gc
import gzip
import io
from pathlib import Path

import numpy as np
import pytest

from recstore.errors import InvalidInput
from recstore.evaluation import splits
from recstore.files.pair_files import read_negatives, read_pairs
from recstore.files.split_files import build, matrix, read_split
from recstore.types import IdType

LISTS = "0 10 11 12\n1 10\n2 12 13\n"
ROWS = [(0, 10), (0, 11), (0, 12), (1, 10), (2, 12), (2, 13)]


def written(folder: Path, text: str | bytes, name: str = "train.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(path: Path, format: str = "auto") -> list[tuple[int, int, float]]:
    interactions, _ = build(read_pairs(path, format), IdType.BIGINT, IdType.BIGINT)  # type: ignore[arg-type]
    users, items = (
        ids.take(index).to_pylist()
        for ids, index in (
            (interactions.users, interactions.user_index),
            (interactions.items, interactions.item_index),
        )
    )
    return list(zip(users, items, interactions.values.tolist(), strict=True))


def joined(separator: str, values: bool = False, header: str = "") -> str:
    lines = [separator.join(map(str, [*row, *([2.5] if values else [])])) for row in ROWS]
    return header + "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "value", "layout"),
    [
        (LISTS, 1, "lines of a user and items"),
        (LISTS.replace("\n", " \r\n") + "\n", 1, "lines of a user and items"),
        (LISTS.replace(" ", "\t"), 1, "lines of a user and items"),
        (joined(","), 1, "pairs (user, item) separated by commas"),
        (joined(",", True), 2.5, "pairs (user, item, value) separated by commas"),
        (joined(",", True, "userId,movieId,rating\n"), 2.5, "commas, with a header"),
        (joined(",", header="user,item\n"), 1, "commas, with a header"),
        (joined("\t", True, "user_id:token\titem_id:token\trating:float\n"), 2.5, "tabs, with a header"),
        (joined(";", True, '"who";"what";"count"\n'), 2.5, "semicolons, with a header"),
        (joined("::", True), 2.5, "'::'"),
        (joined(" "), 1, "spaces"),
        (joined("  ", True).replace("\n", " \n\n"), 2.5, "spaces"),
        ("\ufeff" + joined("|"), 1, "bars"),
        (joined(",").replace("0,10", '"0","10"'), 1, "commas"),
    ],
)
def test_every_form_gives_the_same_pairs(tmp_path: Path, text: str, value: float, layout: str) -> None:
    path = written(tmp_path, text)
    assert rows(path) == [(*row, value) for row in ROWS]
    assert layout in str(read_pairs(path).layout)
    assert rows(written(tmp_path, gzip.compress(text.encode()), "train.gz")) == [(*row, value) for row in ROWS]


def test_a_header_says_where_the_columns_are(tmp_path: Path) -> None:
    path = written(tmp_path, "time,item_id,user_id,plays\n5,10,7,3\n6,11,7,4\n")
    assert rows(path) == [(7, 10, 3), (7, 11, 4)]
    assert read_pairs(path).times is not None


def test_ratings_with_seconds_have_times(tmp_path: Path) -> None:
    interactions, _ = build(
        read_pairs(written(tmp_path, "0\t10\t5\t978300760\n0\t11\t3\t978302109\n")), IdType.BIGINT, IdType.BIGINT
    )
    assert interactions.times is not None
    assert interactions.times.tolist() == [978300760_000_000, 978302109_000_000]
    assert np.datetime64(int(interactions.times[0]), "us") == np.datetime64("2000-12-31T22:12:40")


def test_the_form_can_be_said_where_one_can_not_tell(tmp_path: Path) -> None:
    path = written(tmp_path, "1 5 6\n2 5 7\n")
    assert rows(path) == [(1, 5, 6), (2, 5, 7)]
    assert rows(path, "lists") == [(1, 5, 1), (1, 6, 1), (2, 5, 1), (2, 7, 1)]
    path = written(tmp_path, "1 5 6\n2 5\n")
    assert len(rows(path)) == 3
    with pytest.raises(InvalidInput, match="line 2: it has 2 fields"):
        rows(path, "pairs")


def test_a_split_has_ids_of_one_kind_and_says_what_it_found(tmp_path: Path) -> None:
    train = written(tmp_path, joined(",", True) + "0,10,1\n2,14,0\n")
    test = written(tmp_path, "0 13\n1 12 13\n9 10\n", "test.txt")
    split = read_split(train, test)
    assert (split.user_type, split.item_type) == (IdType.BIGINT, IdType.BIGINT)
    assert split.train.values.tolist() == [3.5, 2.5, 2.5, 2.5, 2.5, 2.5]
    assert "1 repeated pairs added up; 1 rows of 0 or less left out" in split.sentences[0]
    assert "4 pairs of 3 users and 3 items; lines of a user and items" in split.sentences[1]
    assert read_split(train, test, values=False).train.values.tolist() == [2, 1, 1, 1, 1, 1, 1]
    lettered = written(tmp_path, "0 13\n1 12 x\n", "test.txt")
    assert read_split(train, lettered).item_type is IdType.TEXT
    assert read_split(train, lettered).user_type is IdType.BIGINT
    padded = written(tmp_path, "007 13\n7 12\n8 13 14\n", "test.txt")
    assert read_split(train, padded).user_type is IdType.TEXT


def test_sampled_negatives(tmp_path: Path) -> None:
    train, test = written(tmp_path, joined("\t", True)), written(tmp_path, "0\t13\t5\n1\t11\t5\n", "test")
    negatives = written(tmp_path, "(0,13)\t14\t10\n(1,11)\t13\t12\t99\n", "negatives")
    split = read_split(train, test, negatives)
    assert split.negatives
    assert "negatives: 5 items for 2 users" in split.sentences[2]
    whole = splits.given(split.train, split.test).train
    found = matrix(split.negatives, whole.users, whole.items, split.user_type, split.item_type)
    pairs = {(whole.users.to_python(u), whole.items.to_python(i)) for u, i in zip(*found.nonzero(), strict=True)}
    assert pairs == {(0, 10), (1, 13), (1, 12)}  # 14 and 99 are items that neither part has
    assert len(read_negatives(written(tmp_path, "0 14 10\n1 13 12 99\n", "lists"))) == 5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        (b"\xff\xfe1,2\n", "line 1: it is not UTF-8 text"),
        ("1,2\n3\n4,5\n", r"line 2: it has 1 fields separated by commas, the first line has 2"),
        ("\n1,2\n\n3,4,5\n", "line 4: it has 3 fields"),
        ("1,2,3\n1,3,many\n", "line 2: 'many' is not a number"),
        ("1,2,3\n1,3,nan\n", "line 2: 'nan' is not a number"),
        ("1,2,3\n1,3,\n", "line 2: '' is not a number"),
        ("1,2\n1,\n", "line 2: an id is empty"),
        ("user item value\n1 2 3\n1 2 x\n", "line 3: 'x' is not a number"),
        ("1::2::3\n1::2:3\n", "line 2: it has 2 fields separated by '::'"),
        ("user,item\n", "a header and no pairs"),
        ("1,2,0\n1,3,-1\n", "no pair with a value above 0"),
        ("1 \n2 \n", "line 1: it has one field only"),
        ('1,"2\n3,4\n5,6\n', "line 1: a quote that is not closed"),
        ("(0,1)\t2\t3\n", "give it as --negatives"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InvalidInput, match=sentence) as refused:
        rows(path)
    assert str(path) in refused.value.message


@pytest.mark.parametrize("text", [b"\xff\xfe1,2\n", "1 \n2 \n"])
def test_a_file_with_a_mistake_is_closed_while_its_error_is_held(tmp_path: Path, text: str | bytes) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InvalidInput) as refused:
        rows(path)
    assert refused.value.__traceback__
    files = [one for one in gc.get_objects() if isinstance(one, io.BufferedReader) and one.name == str(path)]
    assert all(file.closed for file in files)


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="There is no file"):
        read_pairs(tmp_path / "none")
    with pytest.raises(InvalidInput, match="is a folder"):
        read_pairs(tmp_path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_pairs(written(tmp_path, gzip.compress(b"1,2\n" * 999)[:-12]))
    with pytest.raises(InvalidInput, match=r"line 2: '\(1,' should be"):
        read_negatives(written(tmp_path, "(0,13)\t14\n(1,\t3\n"))


@pytest.mark.parametrize(
    ("text", "user_type", "words"),
    [
        ("1,2\nx,3\n", IdType.INTEGER, "integer"),
        ("1,2\nx,3\n", IdType.UUID, "uuid: '1' is not a valid id"),
        ("99999,2\n", IdType.SMALLINT, "smallint"),
    ],
)
def test_ids_not_of_the_recommenders_types(text: str, user_type: IdType, words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"not all of the type {words}"):
        build(read_pairs(written(tmp_path, text)), user_type, IdType.INTEGER)


def test_uuids_are_ids(tmp_path: Path) -> None:
    uuids = "00000000-0000-0000-0000-000000000002,2\n00000000-0000-0000-0000-000000000001,3\n"
    interactions, _ = build(read_pairs(written(tmp_path, uuids)), IdType.UUID, IdType.INTEGER)
    assert interactions.item_index.tolist() == [1, 0]
