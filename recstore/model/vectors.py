"""From factors to the vectors that are published, and back. Pure.

ALS ranks items for a user by x_u . y_i, and similar items by the cosine of y_i and y_j. Published are, for an item, its
direction (`embedding`) and y_i / M with M the longest item (`preference`), for a user its direction (`preference`);
dividing all items by one M and a user by its own length changes no ranking, and
x_u . y_i = user preference . item preference * user length * M. Lengths are kept, so the factors can be read back.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recstore.errors import FactorsCollapsed, TrainingDiverged

Matrix = NDArray[np.float32]
Lengths = NDArray[np.float64]

COLLAPSED = 1e-6
"""A factor shorter than this part of the longest of its side is noise: its direction says nothing."""

NOTHING = 1e-12
"""A longest factor below this predicts nothing at all (factors of a trained model are near 0.01 to 10)."""


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """Row i is the item of index i. A collapsed one is not `published`: zeros here, NULL in Postgres."""

    embedding: Matrix  # (items, dimensions), unit rows
    preference: Matrix  # (items, dimensions), rows of length at most 1
    length: Lengths  # (items,), of the factors
    published: NDArray[np.bool_]  # (items,)
    longest: float  # M, the greatest of `length`


@dataclass(frozen=True, eq=False)
class UserVectors:
    """Row u is the user of index u. A collapsed user, or one without interactions, is not `published`."""

    preference: Matrix  # (users, dimensions), unit rows
    length: Lengths  # (users,), of the factors
    published: NDArray[np.bool_]  # (users,)

    def mean(self) -> Matrix:
        """The mean over the published users' unit vectors, (dimensions,): ordered by it, items stand by the average of
        what they score with each user, every user counting the same. Zeros without users."""
        mean = self.preference.sum(axis=0, dtype=np.float64) / max(1, np.count_nonzero(self.published))
        return np.asarray(mean, dtype=np.float32)


class Storage(NamedTuple):
    """The type and the number of dimensions of a recommender's vectors."""

    vector_type: str
    dimensions: int


@dataclass(frozen=True, eq=False)
class PublishedVectors:
    """The vectors of both sides."""

    items: ItemVectors
    users: UserVectors
    storage: Storage

    def details(self) -> dict[str, Any]:
        return {"dimensions": self.storage.dimensions, "type": self.storage.vector_type}

    def __str__(self) -> str:
        return f"{self.storage.dimensions} dimensions, {self.storage.vector_type}"


def publish(item_factors: Matrix, user_factors: Matrix, storage: Storage) -> PublishedVectors:
    """Return the vectors of factors (items, factors) and (users, factors). Raises as `item_vectors` does."""
    dimensions = storage.dimensions
    return PublishedVectors(item_vectors(item_factors, dimensions), user_vectors(user_factors, dimensions), storage)


def item_vectors(item_factors: Matrix, dimensions: int) -> ItemVectors:
    """Vectors of item factors (items, factors), padded with zeros to `dimensions`. Raises TrainingDiverged for factors
    that are not finite, FactorsCollapsed where all have shrunk to nothing."""
    length, longest, published = _lengths(item_factors, "item")
    return ItemVectors(
        embedding=_divide(item_factors, length, published, dimensions),
        preference=_divide(item_factors, np.full_like(length, longest), published, dimensions),
        length=length,
        published=published,
        longest=longest,
    )


def user_vectors(user_factors: Matrix, dimensions: int) -> UserVectors:
    """Vectors of user factors (users, factors), padded with zeros to `dimensions`; raises as `item_vectors` does."""
    length, _, published = _lengths(user_factors, "user")
    return UserVectors(_divide(user_factors, length, published, dimensions), length, published)


def factors_from(unit: Matrix, length: Lengths, factors: int) -> Matrix:
    """The factors, float32 (n, factors), of unit vectors (an item's `embedding`, a user's `preference`) and their
    lengths, without the padding; zeros where nothing was published."""
    return (unit[:, :factors] * length[:, None]).astype(np.float32)


def _lengths(factors: Matrix, side: str) -> tuple[Lengths, float, NDArray[np.bool_]]:
    length = np.sqrt(np.einsum("ij,ij->i", factors, factors, dtype=np.float64))
    broken = int(np.count_nonzero(~np.isfinite(length)))
    if broken:
        raise TrainingDiverged(what=f"those of {broken} of {len(length)} {side}s")
    longest = float(length.max(initial=0.0))
    if longest < NOTHING:
        raise FactorsCollapsed(side=side, longest=longest)
    return length, longest, length >= COLLAPSED * longest


def _divide(factors: Matrix, by: Lengths, published: NDArray[np.bool_], dimensions: int) -> Matrix:
    """Published rows divided by their number in double precision, other rows and the padding zero."""
    vectors = np.zeros((len(factors), dimensions), dtype=np.float32)
    where, into = published[:, None], vectors[:, : factors.shape[1]]
    np.divide(factors, by[:, None], out=into, where=where, casting="same_kind")
    return vectors
