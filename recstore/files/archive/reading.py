"""Read an exported file, check it from end to end, and fit its content to a recommender's ids. Pure: no database.

Each fault becomes one sentence (`FileRefused`): a file may come from anywhere, and nothing in it is executed.
"""

import json
import zipfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import ValidationError

from recstore.errors import FileRefused, IdsDoNotConvert
from recstore.files.archive.contents import (
    FORMAT,
    NUMBERS,
    VERSION,
    About,
    Array,
    convert,
    id_arrays,
    ids_of,
    key_digest,
)
from recstore.model import trainers
from recstore.model.arrays import Mask, Matrix
from recstore.model.interactions import IdMap
from recstore.model.trained import Stored
from recstore.model.trainers import QueryFoldIn
from recstore.model.vectors import ItemVectors, UserVectors
from recstore.types import IdType

EXAMPLES = 3
"""Ids that an error names."""

TOLERANCE = {4: 1e-3, 2: 2e-2, 8: 1e-3}
"""Tolerance of a vector's length, by the bytes of its elements."""

ARRAYS = (
    *("item_embedding", "item_preference", "item_length", "item_users", "item_views"),
    *("mean_preference", "user_preference", "user_length"),
)
"""Arrays of every file, the ids left out. One about users may be without any array of them."""


READ = {
    *("about", "item_held_out", "item_refreshed", "user_refreshed", "item_idf", "basis", *ARRAYS),
    *(f"{side}_id{form}" for side in ("item", "user") for form in ("", "_utf8", "_end")),
}
"""Arrays that are read; what a newer recstore adds is ignored."""

EXPANSION = 20
"""The factor over the file's size that its arrays may take. Exported files are not compressed, and vectors hardly can be."""


@dataclass(frozen=True, eq=False)
class Exported:
    """A file's content: row i of each array about items belongs to the item at position i of `items`, likewise users.

    `read` returns the file's own ids and order, `fit` a recommender's. Vectors have `about.factors` dimensions; those that
    were not published are zeros.
    """

    path: Path
    about: About
    has_users: bool
    items: IdMap
    item_embedding: Matrix
    item_preference: Matrix
    item_length: NDArray[np.float64]
    item_users: NDArray[np.int64]
    item_views: NDArray[np.float64]
    item_held_out: NDArray[np.int64]
    item_refreshed: Mask
    users: IdMap
    user_preference: Matrix
    user_length: NDArray[np.float64]
    user_refreshed: Mask
    mean_preference: Matrix  # (factors,)
    basis: Matrix | None
    item_idf: NDArray[np.float64] | None
    """The fold-in of a refreshed generation; None where its items determine it."""

    @property
    def longest(self) -> float:
        return self.about.longest or float(self.item_length.max())

    def for_queries(self, model: Stored) -> QueryFoldIn | None:
        """Return the input for folding in by SQL, as it was published; `model` is the file's."""
        if self.basis is None or not self.item_refreshed.any():
            return model.for_queries()
        training = QueryFoldIn(basis=self.basis, solved_weight=self.about.training.get("solved_weight") or 1.0)
        found = trainers.later_items(model.trainer, model.fold_in, training)
        return replace(training, whitened=found.whitened, summands=found.summands, idf=self.item_idf)

    def item_vectors(self, dimensions: int) -> ItemVectors:
        """Return the vectors as they were published."""
        return ItemVectors(
            embedding=_padded(self.item_embedding, dimensions),
            preference=_padded(self.item_preference, dimensions),
            length=self.item_length,
            published=_present(self.item_embedding),
            longest=self.longest,
        )

    def user_vectors(self, dimensions: int) -> UserVectors:
        """Return the vectors as they were published; none if the file has no users."""
        preference = self.user_preference
        return UserVectors(_padded(preference, dimensions), self.user_length, _present(preference))

    def mean(self, dimensions: int) -> Matrix:
        """Return the mean user direction, (dimensions,)."""
        return np.asarray(_padded(self.mean_preference[None], dimensions)[0])

    def held_out(self, user_type: IdType, item_type: IdType, key: Any) -> dict[str, Any] | None:
        """Return the held-out pairs as a training stores them.

        The pairs a generation did not see are known only if the recommender holds out the same ones, by `key` and by ids that
        hash alike; otherwise nothing counts as unseen.
        """
        about = self.about
        if about.held_out is None:
            return None
        positions = np.flatnonzero(self.item_held_out)
        kept = {name: value for name, value in about.held_out.items() if name != "key_digest"}
        sides = ((about.user_type, user_type), (about.item_type, item_type))
        alike = all(one is other or {one, other} <= NUMBERS.keys() for one, other in sides)  # numbers hash alike
        if not alike or about.held_out.get("key_digest") != key_digest(key):
            kept["users_below"] = 0
        return kept | {"items": positions.tolist(), "counts": self.item_held_out[positions].tolist()}

    def conversions(self, user_type: IdType, item_type: IdType) -> list[str]:
        """Return sentences such as "user ids from bigint to text"; none if the types are the file's."""
        sides = [("user", self.about.user_type, user_type)] * self.has_users
        return [
            f"{side} ids from {found.value} to {wanted.value}"
            for side, found, wanted in [*sides, ("item", self.about.item_type, item_type)]
            if found is not wanted
        ]


def fit(exported: Exported, name: str, user_type: IdType, item_type: IdType) -> Exported:
    """Return the content with ids of these types, each written as before, in their order. Raises IdsDoNotConvert."""
    parts: dict[str, Any] = {}
    sides = (("user", exported.about.user_type, user_type), ("item", exported.about.item_type, item_type))
    for side, found, wanted in sides:
        ids, failed = convert(getattr(exported, f"{side}s").ids, found, wanted)
        if failed:
            raise IdsDoNotConvert(
                path=exported.path,
                name=name,
                side=side,
                found=found.value,
                wanted=wanted.value,
                failed=len(failed),
                total=len(ids),
                examples=", ".join(map(str if found in NUMBERS else repr, failed[:EXAMPLES])),
            )
        order = np.asarray(pc.sort_indices(ids))
        if (order[1:] < order[:-1]).any():  # otherwise nothing is copied
            arrays = [one.name for one in fields(exported) if one.name.startswith(f"{side}_")]
            parts |= {array: rows[order] for array in arrays if (rows := getattr(exported, array)) is not None}
            ids = ids.take(pa.array(order))
        parts[f"{side}s"] = IdMap(ids)
    return replace(exported, **parts)


def _present(vectors: Matrix) -> NDArray[np.bool_]:
    """Return which rows are not zeros."""
    return np.asarray(vectors.any(axis=1))


def _padded(rows: Matrix, dimensions: int) -> Matrix:
    more = dimensions - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, more))) if more else rows


def read(path: Path) -> Exported:
    """Read the whole file; check form and version, shapes, unique ids, finite numbers, lengths. Raises FileRefused."""
    try:
        return _checked(path, _arrays(path))
    except ValueError as error:
        raise FileRefused(path=path, reason=str(error)) from error


def _arrays(path: Path) -> dict[str, Array]:
    """Return the arrays to read by name. Raises FileRefused, and ValueError that says what is wrong."""
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
            if not start:
                raise ValueError("it is empty")
            if start[:2] != b"PK":
                raise ValueError("it is no file of `recstore export` (no .npz)")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as file:
                found = {f"{name}.npy": name for name in READ.intersection(file.files)}
                declared = sum(member.file_size for member in file.zip.infolist() if member.filename in found)
                if declared > EXPANSION * path.stat().st_size:
                    raise ValueError(f"its arrays would take {declared:,} bytes, {EXPANSION} times its size or more")
                return {name: _array(file, name) for name in found.values()}
    except FileNotFoundError:
        raise FileRefused(path=path, reason="there is no such file") from None
    except zipfile.BadZipFile as error:
        cut = "File is not a zip file" in str(error)
        raise ValueError(
            "its end is missing: it was not copied whole" if cut else f"it is damaged ({error})"
        ) from error
    except OSError as error:
        raise FileRefused(path=path, reason=f"it cannot be read: {error.strerror or error}") from error


def _array(file: Any, name: str) -> Array:
    try:
        found = file[name]
    except Exception as error:  # of NumPy's parser, zipfile or zlib, whatever bytes they met
        if "pickle" in str(error):
            raise ValueError(f"{name} is pickled Python, which recstore never loads") from error
        raise ValueError(f"it is damaged: {name} cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{name} is no NumPy array")
    return found


def _checked(path: Path, arrays: dict[str, Array]) -> Exported:
    about = _about(arrays)
    has_users = any(name.startswith("user_") for name in arrays)
    if not has_users:
        arrays |= id_arrays("user", pa.array([], about.user_type.arrow), about.user_type)
        arrays |= {"user_preference": np.zeros((0, about.factors), np.float32), "user_length": np.zeros(0)}
    missing = [name for name in ARRAYS if name not in arrays]
    for side in ("item", "user"):
        if f"{side}_id" not in arrays and not {f"{side}_id_utf8", f"{side}_id_end"} <= arrays.keys():
            missing.append(f"{side}_id")
    if missing:
        raise ValueError(f"it has no array {' and no array '.join(missing)}")

    ids = {}
    for side, kind in (("item", about.item_type), ("user", about.user_type)):
        found = ids[side] = ids_of(arrays, side, kind)
        if twice := len(found) - len(pc.unique(found)):
            raise ValueError(f"{twice:,} of its {len(found):,} {side} ids occur more than once")
    items, users, factors = len(ids["item"]), len(ids["user"]), about.factors
    if not items:
        raise ValueError("it has no items")

    length = _numbers(arrays, "item_length", items)
    embedding = _vectors(arrays, "item_embedding", items, factors)
    preference = _vectors(arrays, "item_preference", items, factors)
    longest = about.longest or float(length.max())
    tolerance = TOLERANCE[arrays["item_preference"].dtype.itemsize]
    item_users = _counts(arrays, "item_users", items)
    weighted = length * about.weights(item_users)
    _check_scaled(preference, None if about.rated else embedding, weighted, longest, tolerance)
    arrays.setdefault("item_held_out", np.zeros(items, np.int64))
    held_out = _counts(arrays, "item_held_out", items)
    if (held_out > item_users).any():
        raise ValueError("item_held_out has more users than item_users")
    return Exported(
        path=path,
        about=about,
        has_users=has_users,
        items=IdMap(ids["item"]),
        item_embedding=embedding,
        item_preference=preference,
        item_length=length,
        item_users=item_users,
        item_views=_numbers(arrays, "item_views", items),
        item_held_out=held_out,
        item_refreshed=_marks(arrays, "item_refreshed", items),
        users=IdMap(ids["user"]),
        user_preference=_vectors(arrays, "user_preference", users, factors),
        user_length=_numbers(arrays, "user_length", users),
        user_refreshed=_marks(arrays, "user_refreshed", users),
        mean_preference=_numbers(arrays, "mean_preference", factors, negative=True).astype(np.float32),
        basis=_basis(arrays, factors),
        item_idf=_numbers(arrays, "item_idf", items) if "item_idf" in arrays else None,
    )


def _about(arrays: dict[str, Array]) -> About:
    text = arrays.get("about")
    if text is None or text.dtype.kind != "U" or text.ndim:
        raise ValueError("it is no file of `recstore export` (no text `about` in it)")
    try:
        said = json.loads(text.item())
    except (ValueError, RecursionError):  # the latter: nested ever deeper
        said = None
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise ValueError(f"it is no file of `recstore export` (`about` does not say {FORMAT!r})")
    if said.get("version") != VERSION:
        raise ValueError(
            f"it is of version {said.get('version')!r} of the format, this recstore reads version {VERSION}; a newer"
            " recstore may read it"
        )
    try:
        about = About.model_validate(said)
        about.check_parts()
        return about
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"`about` is not understood here ({where}: {first['msg']}); a newer recstore may") from None


def _vectors(arrays: dict[str, Array], name: str, rows: int, factors: int) -> Matrix:
    """Return vectors, of which all but preferences of items have length 1 or 0."""
    found = arrays[name]
    _check_shape(name, found, (rows, factors))
    if found.dtype.kind != "f" or found.dtype.itemsize not in TOLERANCE:
        raise ValueError(f"{name} is {found.dtype}, not float32 or float16")
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(found, dtype=np.float32)
    norms = _norms(vectors)
    _check_finite(name, norms)
    wrong = (norms > 0) & (np.abs(norms - 1) > TOLERANCE[found.dtype.itemsize])
    if name != "item_preference" and wrong.any():
        raise ValueError(f"{_of(wrong)} rows of {name} are neither of length 1 nor zeros")
    return vectors


def _basis(arrays: dict[str, Array], factors: int) -> Matrix | None:
    """Return the basis of the solved factors, which are the first of all; None in a file without it."""
    if "basis" not in arrays:
        return None
    found = arrays["basis"]
    solved = min(len(found), factors) if found.ndim else 0
    _check_shape("basis", found, (solved, solved))
    rows = [_numbers({"basis": row}, "basis", solved, negative=True) for row in found]
    return np.array(rows, dtype=np.float32)


def _check_scaled(
    preference: Matrix, embedding: Matrix | None, length: NDArray[np.float64], longest: float, tolerance: float
) -> None:
    """Raise ValueError unless preference is embedding * length, that of weighted factors, / the longest, for at least one item.
    Of ratings, whose embedding lacks the biases, only the lengths are compared."""
    published = _present(preference if embedding is None else embedding)
    if not published.any() or not longest > 0:
        raise ValueError("none of its items has a vector")
    along = _norms(preference) if embedding is None else np.einsum("ij,ij->i", embedding, preference, dtype=np.float64)
    apart = ~(np.abs(along - np.where(published, length / longest, 0)) <= tolerance)
    apart |= np.abs(_norms(preference) - np.abs(along)) > tolerance
    if apart.any():
        raise ValueError(
            f"{_of(apart)} rows of item_preference are not item_embedding * item_length * the item's weight / the longest"
        )


def _norms(vectors: Matrix) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)))


def _numbers(arrays: dict[str, Array], name: str, rows: int, *, negative: bool = False) -> NDArray[np.float64]:
    found = arrays[name]
    _check_shape(name, found, (rows,))
    if found.dtype.kind not in "fiu":
        raise ValueError(f"{name} is {found.dtype}, not numbers")
    numbers = found.astype(np.float64)
    _check_finite(name, numbers)
    if not negative and (numbers < 0).any():
        raise ValueError(f"{_of(numbers < 0)} numbers of {name} are negative")
    return numbers


def _counts(arrays: dict[str, Array], name: str, rows: int) -> NDArray[np.int64]:
    if arrays[name].dtype.kind not in "iu":
        raise ValueError(f"{name} is {arrays[name].dtype}, not whole numbers")
    counts = _numbers(arrays, name, rows)
    if (counts >= 1 << 31).any():
        raise ValueError(f"{name} has numbers beyond {IdType.INTEGER.value}")
    return counts.astype(np.int64)


def _marks(arrays: dict[str, Array], name: str, rows: int) -> Mask:
    """Return which rows a refresh wrote; none in a file without them."""
    found = arrays.get(name, np.zeros(rows, dtype=np.bool_))
    _check_shape(name, found, (rows,))
    if found.dtype != np.bool_:
        raise ValueError(f"{name} is {found.dtype}, not true and false")
    return found


def _check_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        found = " x ".join(map(str, array.shape)) or "a single one"
        raise ValueError(f"{name} is {found}, but {' x '.join(map(str, shape))} by its ids and `about`")


def _check_finite(name: str, numbers: NDArray[np.float64]) -> None:
    broken = ~np.isfinite(numbers)
    if broken.any():
        raise ValueError(f"{_of(broken)} rows of {name} are not finite numbers")


def _of(wrong: NDArray[np.bool_]) -> str:
    return f"{int(wrong.sum()):,} of {len(wrong):,}"
