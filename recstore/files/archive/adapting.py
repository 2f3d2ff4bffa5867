"""An exported file's content as a recommender's own: ids in its types, rows in their order, vectors in its dimensions. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recstore.errors import IdsDoNotConvert
from recstore.files.archive.contents import NUMBERS, About, key_digest
from recstore.files.archive.ids import NotConvertible, convert
from recstore.files.archive.reading import Exported
from recstore.model.arrays import Matrix
from recstore.model.interactions import IdMap
from recstore.model.vectors import ItemVectors, UserVectors
from recstore.types import IdType


@dataclass(frozen=True, eq=False)
class Fitted:
    """A file's content: row i of each array about items belongs to the item at position i of `items`, likewise users."""

    path: Path
    about: About
    has_users: bool
    users: IdMap
    items: IdMap
    item_embedding: Matrix  # (items, factors)
    item_preference: Matrix
    item_length: NDArray[np.float64]
    item_users: NDArray[np.int64]
    item_views: NDArray[np.float64]
    item_held_out: NDArray[np.int64]
    user_preference: Matrix  # (users, factors)
    user_length: NDArray[np.float64]
    mean_preference: Matrix  # (factors,)

    def item_vectors(self, dimensions: int) -> ItemVectors:
        """Return the vectors as they were published."""
        return ItemVectors(
            embedding=_padded(self.item_embedding, dimensions),
            preference=_padded(self.item_preference, dimensions),
            length=self.item_length,
            published=_present(self.item_embedding),
            longest=float(self.item_length.max()),
        )

    def user_vectors(self, dimensions: int) -> UserVectors:
        """Return the vectors as they were published; none if the file has no users."""
        published = _present(self.user_preference)
        return UserVectors(_padded(self.user_preference, dimensions), self.user_length, published)

    def mean(self, dimensions: int) -> Matrix:
        """Return the mean user direction, (dimensions,)."""
        return np.asarray(_padded(self.mean_preference[None], dimensions)[0])

    def held_out(self, user_type: IdType, item_type: IdType, key: Any) -> dict[str, Any] | None:
        """Return the held-out pairs as a training stores them.

        The pairs a generation did not see are known only if the recommender holds out the same ones, by `key` and by ids that
        hash alike; otherwise nothing counts as unseen.
        """
        said = self.about.held_out
        if said is None:
            return None
        positions = np.flatnonzero(self.item_held_out)
        kept = {name: value for name, value in said.items() if name != "key_digest"}
        alike = _alike(self.about.user_type, user_type) and _alike(self.about.item_type, item_type)
        if not alike or said.get("key_digest") != key_digest(key):
            kept["users_below"] = 0
        return kept | {"items": positions.tolist(), "counts": self.item_held_out[positions].tolist()}

    def conversions(self, user_type: IdType, item_type: IdType) -> list[str]:
        """Return sentences such as "user ids from bigint to text"; none if the types are the file's."""
        sides = (("user", self.about.user_type, user_type), ("item", self.about.item_type, item_type))
        return [
            f"{side} ids from {found.value} to {wanted.value}"
            for side, found, wanted in sides
            if found is not wanted and (self.has_users or side == "item")
        ]


def fit(exported: Exported, name: str, user_type: IdType, item_type: IdType) -> Fitted:
    """Return the file's content with ids of these types, each written as before. Raises IdsDoNotConvert."""
    about = exported.about
    users, of_users = _ids(exported, name, "user", exported.user_ids, about.user_type, user_type)
    items, of_items = _ids(exported, name, "item", exported.item_ids, about.item_type, item_type)
    return Fitted(
        path=exported.path,
        about=about,
        has_users=exported.has_users,
        users=users,
        items=items,
        item_embedding=of_items(exported.item_embedding),
        item_preference=of_items(exported.item_preference),
        item_length=of_items(exported.item_length),
        item_users=of_items(exported.item_users),
        item_views=of_items(exported.item_views),
        item_held_out=of_items(exported.item_held_out),
        user_preference=of_users(exported.user_preference),
        user_length=of_users(exported.user_length),
        mean_preference=exported.mean_preference,
    )


def _ids(
    exported: Exported, name: str, side: str, ids: pa.Array, found: IdType, wanted: IdType
) -> tuple[IdMap, Callable[[NDArray[Any]], NDArray[Any]]]:
    """Return the ids in order, and a function that brings rows into that order."""
    try:
        converted = convert(ids, found, wanted)
    except NotConvertible as error:
        raise IdsDoNotConvert(
            path=exported.path,
            name=name,
            side=side,
            found=found.value,
            wanted=wanted.value,
            failed=error.failed,
            total=error.total,
            examples=", ".join(error.examples),
        ) from None
    order = np.asarray(pc.sort_indices(converted))
    if (order == np.arange(len(order), dtype=order.dtype)).all():
        return IdMap(converted), lambda rows: rows
    return IdMap(converted.take(pa.array(order))), lambda rows: rows[order]


def _padded(rows: Matrix, dimensions: int) -> Matrix:
    if rows.shape[1] == dimensions:
        return rows
    padded = np.zeros((len(rows), dimensions), dtype=np.float32)
    padded[:, : rows.shape[1]] = rows
    return padded


def _present(vectors: Matrix) -> NDArray[np.bool_]:
    """Return which rows are not zeros."""
    return np.asarray(vectors.any(axis=1))


def _alike(one: IdType, other: IdType) -> bool:
    """Return whether an id hashes alike in both types (see `held_out`)."""
    return one is other or (one in NUMBERS and other in NUMBERS)
