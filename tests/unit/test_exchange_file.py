"""The exported file without a database: ids of every type and their conversion, and each thing that can be wrong with a file."""

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recstore.definition import Definition, Source
from recstore.errors import FileRefused
from recstore.files.archive import contents, reading
from recstore.files.archive.contents import convert, written
from recstore.files.archive.exporting import Archive
from recstore.types import IdType

UUIDS = [uuid.UUID(int=n * 7**20) for n in range(5)]
IDS: dict[IdType, list[Any]] = {
    IdType.SMALLINT: [-(2**15), -1, 0, 2**15 - 1],
    IdType.INTEGER: [-(2**31), 0, 42, 2**31 - 1],
    IdType.BIGINT: [-(2**63), -5, 7, 2**63 - 1],
    IdType.UUID: [one.bytes for one in UUIDS],
    IdType.TEXT: ["", " ", "042", "42", "a ", "Ä", "ñ" * 400, "\U0001f600"],
}


def vectors(rows: int, factors: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed).normal(size=(rows, factors))
    return random / np.linalg.norm(random, axis=1, keepdims=True)


def content(**said: Any) -> dict[str, np.ndarray]:
    """What a small file holds: five items, the last collapsed, three users."""
    unit, length = vectors(5, 4, 1).astype(np.float32), np.array([2.0, 1.0, 0.5, 3.0, 1e-9])
    unit[4] = 0
    told = contents.About(
        recommender="shop", generation=7, exported_at=datetime.now(UTC), user_type=IdType.TEXT, item_type=IdType.INTEGER,
        users=3, items=5, factors=4, definition=Definition(source=Source(table="shop.views")), training={}, confidence={},
    )  # fmt: skip
    return {
        "about": np.array(json.dumps(told.model_dump(mode="json") | said)),
        "item_id": np.array([1, 2, 3, 10, 11], dtype=np.int32),
        "item_embedding": unit,
        "item_preference": (unit * length[:, None] / 3).astype(np.float32),
        "item_length": length,
        "item_users": np.array([5, 4, 3, 2, 1]),
        "item_views": np.array([5.0, 4, 3, 2, 1.5]),
        "user_id": np.array(["a", "b", "c"]),
        "user_preference": vectors(3, 4, 2).astype(np.float32),
        "user_length": np.ones(3),
        "mean_preference": np.ones(4, dtype=np.float32),
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.npz"


@pytest.mark.parametrize("kind", list(IdType))
@pytest.mark.parametrize("padded", [64 << 20, 0])
def test_ids_come_back(kind: IdType, padded: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the form for ids of very different lengths, which NumPy's own would widen."""
    monkeypatch.setattr(contents, "PADDED_BYTES", padded)
    ids = pa.array(IDS[kind], kind.arrow)
    with Archive(path) as archive:
        for name, array in contents.id_arrays("item", ids, kind).items():
            archive.add(name, array)
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    packed = kind is IdType.TEXT and padded == 0
    assert arrays.keys() == ({"item_id_utf8", "item_id_end"} if packed else {"item_id"})
    if kind is IdType.UUID:
        assert arrays["item_id"].tolist() == [str(one) for one in UUIDS]
    assert contents.ids_of(arrays, "item", kind).equals(ids)
    assert contents.ids_of({name: array[:0] for name, array in arrays.items()}, "item", kind).equals(ids[:0])


def test_an_array_written_in_blocks_is_the_array(path: Path) -> None:
    whole = vectors(1000, 16, 3).astype(np.float16)
    with Archive(path) as archive, archive.rows("vectors", whole.shape, whole.dtype) as write:
        for start in range(0, 1000, 300):
            write(whole[start : start + 300])
    with np.load(path, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["vectors"], whole)
    with pytest.raises(ValueError, match="rows"), Archive(path) as archive:  # noqa: SIM117
        with archive.rows("vectors", whole.shape, whole.dtype) as write:
            write(whole[:999])


@pytest.mark.parametrize(
    ("found", "ids", "wanted", "expected"),
    [
        (IdType.BIGINT, [1, -42], IdType.TEXT, ["1", "-42"]),
        (IdType.TEXT, ["0", "-42"], IdType.SMALLINT, [0, -42]),
        (IdType.BIGINT, [2**31 - 1], IdType.INTEGER, [2**31 - 1]),
        (IdType.SMALLINT, [-7], IdType.BIGINT, [-7]),
        (IdType.UUID, [UUIDS[3].bytes], IdType.TEXT, [str(UUIDS[3])]),
        (IdType.TEXT, [str(UUIDS[3])], IdType.UUID, [UUIDS[3].bytes]),
        (IdType.TEXT, [], IdType.UUID, []),
    ],
)
def test_ids_that_convert(found: IdType, ids: list[Any], wanted: IdType, expected: list[Any]) -> None:
    converted, failed = convert(pa.array(ids, found.arrow), found, wanted)
    assert (converted.to_pylist(), converted.type, failed) == (expected, wanted.arrow, [])
    assert convert(converted, wanted, found) == (pa.array(ids, found.arrow), [])


@pytest.mark.parametrize(
    ("found", "bad", "wanted"),
    [
        (IdType.TEXT, ["042", " 1", "1 ", "+1", "-0", "1_0", "1.0", "", "٣", "9" * 19, "9" * 400, "x"], IdType.BIGINT),
        (IdType.TEXT, [str(UUIDS[3]).upper().replace("-", ""), f"{{{UUIDS[1]}}}", "", "42", "A" * 36], IdType.UUID),
        (IdType.BIGINT, [2**31, -(2**31) - 1, 2**63 - 1], IdType.INTEGER),
        (IdType.BIGINT, [1], IdType.UUID),
        (IdType.UUID, [UUIDS[1].bytes], IdType.BIGINT),
    ],
)
def test_ids_that_could_become_anothers_do_not_convert(found: IdType, bad: list[Any], wanted: IdType) -> None:
    converted, failed = convert(pa.array(bad, found.arrow), found, wanted)
    assert (converted.null_count, len(failed)) == (len(bad), len(bad))


@given(st.lists(st.text("0123456789-+_ a", max_size=4), unique=True), st.sampled_from(list(IdType)))
def test_distinct_ids_stay_distinct(texts: list[str], wanted: IdType) -> None:
    converted, failed = convert(pa.array(texts, pa.string()), IdType.TEXT, wanted)
    assert written(converted.drop_null(), wanted) == [text for text in texts if text not in failed]


def test_a_file_is_read_and_fits_other_ids(path: Path) -> None:
    np.savez(path, **content())
    fitted = reading.fit(reading.read(path), "shop", IdType.TEXT, IdType.TEXT)
    assert fitted.items.ids.to_pylist() == ["1", "10", "11", "2", "3"]  # in the order of text
    assert fitted.item_users.tolist() == [5, 2, 1, 4, 3]
    items = fitted.item_vectors(64)
    assert items.published.tolist() == [True, True, False, True, True]
    assert (items.embedding.shape, items.longest) == ((5, 64), 3.0)
    assert fitted.conversions(IdType.TEXT, IdType.TEXT) == ["item ids from integer to text"]


def without(*names: str) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: [arrays.pop(name) for name in names] and None


def put(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: arrays.update({name: change(arrays[name])})


def first(value: Any) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array = array.copy()
        array[0] = value
        return array

    return change


FITTED = {"function": "bm25", "eps": 1.0, "k1": 100.0, "b": 0.8, "scale_factor": 2.0, "mean_total": 3.0}


def said(**about: Any) -> Callable[[dict[str, Any]], None]:
    fitted = {"fold_in": {"regularization": 1.0}, "confidence": FITTED, "training": {"alpha": 2.0, "trainer": "als"}}
    return lambda arrays: arrays.update(content(**fitted | about))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (said(confidence=FITTED | {"function": "nope"}), "function: Input should be 'linear', 'log'"),
        (said(confidence=FITTED | {"mean_total": 0}), "mean_total: Input should be greater than 0"),
        (said(confidence=FITTED | {"scale_factor": 0}), "scale_factor: Input should be greater than 0"),
        (said(confidence=FITTED | {"eps": 0}), "eps: Input should be greater than 0"),
        (said(training={"alpha": 1e308}), "alpha: Input should be less than or equal to 1000000"),
        (
            said(training={"alpha": 2.0, "item_weights": {"exponent": 0.1, "scale": -1}}),
            "scale: Input should be greater",
        ),
        (said(held_out={"users_below": 5}), "pairs_below: Field required"),
        (without("about"), "no text `about`"),
        (put("about", lambda _: np.array("{")), "`about` does not say"),
        (put("about", lambda _: np.array("[" * 100_000)), "`about` does not say"),
        (
            put("about", lambda _: np.array(json.dumps({"format": contents.FORMAT, "version": 2}))),
            "of version 2 of the format",
        ),
        (
            put("about", lambda _: np.array(json.dumps({"format": contents.FORMAT, "version": 1}))),
            "recommender: Field required",
        ),
        (without("item_length", "user_id"), "no array item_length and no array user_id"),
        (put("item_embedding", first(np.nan)), "1 of 5 rows of item_embedding are not finite"),
        (put("item_embedding", lambda a: a * 2), "4 of 5 rows of item_embedding are neither of length 1 nor zeros"),
        (put("item_embedding", lambda a: a[:, :3]), "item_embedding is 5 x 3, but 5 x 4"),
        (put("item_embedding", lambda a: a * 0), "none of its items has a vector"),
        (put("item_preference", lambda a: a[::-1]), "rows of item_preference are not item_embedding"),
        (put("item_preference", first(np.nan)), "1 of 5 rows of item_preference are not finite"),
        (put("user_preference", first(np.inf)), "1 of 3 rows of user_preference are not finite"),
        (put("user_preference", lambda a: a.astype(int)), "user_preference is int64, not float32"),
        (put("item_users", lambda a: -a), "5 of 5 numbers of item_users are negative"),
        (put("item_users", lambda a: a + 0.5), "item_users is float64, not whole numbers"),
        (put("item_users", lambda a: a + 2**31), "item_users has numbers beyond integer"),
        (put("item_id", lambda a: a[:4]), "item_length is 5, but 4"),
        (put("item_id", first(10)), "1 of its 5 item ids occur more than once"),
        (put("item_id", lambda a: a.astype(np.int64) + 2**40), "item_id has numbers beyond integer"),
        (put("item_id", lambda a: a.astype(str)), "item_id is not a list of whole numbers"),
        (put("user_id", lambda _: np.array(["a", "b", "c\0d"])), "a zero byte"),
        (put("user_id", lambda _: np.array(["a", "b", "\ud800"])), "not valid Unicode"),
        (put("user_id", lambda _: np.array([1, 2, 3])), "user_id is not a list of texts"),
        (put("user_length", lambda _: np.array([1, None, 2])), "user_length is pickled Python"),
        (lambda arrays: arrays.update(item_held_out=np.full(5, 9)), "item_held_out has more users"),
    ],
)
def test_what_is_wrong_with_a_file_is_a_sentence(
    change: Callable[[dict[str, Any]], None], sentence: str, path: Path
) -> None:
    arrays: dict[str, Any] = content()
    change(arrays)
    np.savez(path, **arrays)
    with pytest.raises(FileRefused) as refused:
        reading.read(path)
    assert sentence in refused.value.message
    assert "Nothing was changed." in refused.value.message


def test_what_is_no_such_file(path: Path, tmp_path: Path) -> None:
    np.savez(path, **content())
    whole = path.read_bytes()
    middle = bytearray(whole)
    middle[whole.index(b"item_preference.npy") + 400] ^= 0xFF
    np.save(tmp_path / "one.npy", np.ones(3))
    for name, bytes_, sentence in (
        ("cut.npz", whole[: len(whole) // 2], "its end is missing"),
        ("flipped.npz", bytes(middle), "it is damaged"),
        ("text.npz", b"hello", "no .npz"),
        ("empty.npz", b"", "it is empty"),
        ("one.npz", (tmp_path / "one.npy").read_bytes(), "no .npz"),
        ("only.npz", b"PK\5\6" + bytes(18), "no text `about`"),
    ):
        (tmp_path / name).write_bytes(bytes_)
        with pytest.raises(FileRefused, match=sentence):
            reading.read(tmp_path / name)
    with pytest.raises(FileRefused, match="there is no such file"):
        reading.read(tmp_path / "nowhere.npz")
    with pytest.raises(FileRefused, match="cannot be read: Is a directory"):
        reading.read(tmp_path)


def test_what_was_fitted_is_read(path: Path) -> None:
    arrays: dict[str, Any] = {}
    said(held_out={"users_below": 2**63, "pairs_below": 1, "min_users": 3})(arrays)
    np.savez(path, **arrays)
    assert reading.read(path).about.confidence == FITTED


def test_a_file_that_grows_is_refused_unread(path: Path) -> None:
    """Ten million zeros are a few kilobytes; what recstore does not know is not even counted."""
    bomb = {"item_views": np.zeros(10**7)}
    np.savez_compressed(path, **content() | bomb)
    with pytest.raises(FileRefused, match=r"its arrays would take 80,00\d,\d+ bytes, 20 times its size"):
        reading.read(path)
    np.savez_compressed(path, **content(), newer=bomb["item_views"], pickled=np.array([{}]))
    assert len(reading.read(path).items) == 5
