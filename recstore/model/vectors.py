"""Convert factors to the vectors that are published, and back. Pure.

Items are ranked for a user by x_u . w_i y_i, with w_i the item's weight (`ItemWeights`), and similar items by the cosine of y_i
and y_j. The vectors of an item are its direction (`embedding`) and w_i y_i / M, with M the greatest length of a weighted item
(`preference`); that of a user is its direction (`preference`). Dividing all items by one M, and a user by its length, changes
no ranking: x_u . w_i y_i = user preference . item preference * user length * M. The lengths of y_i and x_u are stored, so that
factors can be restored.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recstore.errors import FactorsCollapsed, TrainingDiverged
from recstore.model.arrays import Lengths, Mask, Matrix

COLLAPSED = 1e-6
"""Length, relative to the longest user or item, below which a direction is noise."""

NOTHING = 1e-12
"""Greatest length of a model that predicts nothing (those of trained models are about 0.01 to 10)."""


@dataclass(frozen=True)
class ItemWeights:
    """Weights of items in the lists: `scale` times the number of an item's users to the power `exponent`.

    Users are solved against unweighted items, so the weights change no fold-in and no cosine. What they are worth:
    docs/decisions/0041-popularity-exponent.md.
    """

    exponent: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, item_users: NDArray[np.int64], exponent: float) -> "ItemWeights":
        """Return the weights whose mean over the pairs is 1."""
        if not exponent:
            return cls()
        users = item_users[item_users > 0].astype(np.float64)
        return cls(exponent, float(users.sum() / (users ** (1 + exponent)).sum()))

    def stored(self) -> dict[str, Any]:
        """Return what a generation stores of them, ready for JSON."""
        return {"item_weights": asdict(self)} if self.exponent else {}

    def __call__(self, item_users: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the weight of each item, (items,); an item without users counts as one with a single user."""
        return self.scale * np.maximum(item_users, 1).astype(np.float64) ** self.exponent

    def weighted(self, item_factors: Matrix, item_users: NDArray[np.int64]) -> Matrix:
        """Return the factors by which the lists rank, float32 (items, factors)."""
        if not self.exponent:
            return item_factors
        return item_factors * self(item_users).astype(np.float32)[:, None]


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """Row i belongs to the item of index i. A collapsed item is not `published`: zeros here, NULL in PostgreSQL."""

    embedding: Matrix  # (items, dimensions), unit rows
    preference: Matrix  # (items, dimensions), rows of length at most 1
    length: Lengths  # (items,), of the unweighted factors
    published: Mask  # (items,)
    longest: float  # M, the greatest length of weighted factors


@dataclass(frozen=True, eq=False)
class UserVectors:
    """Row u belongs to the user of index u. A user that has collapsed or has no interactions is not `published`."""

    preference: Matrix  # (users, dimensions), unit rows
    length: Lengths  # (users,), of the factors
    published: Mask  # (users,)

    def mean(self) -> Matrix:
        """Return the mean of the published unit vectors, float32 (dimensions,), or zeros without users.

        It ranks items by their mean score over all users, each with the same weight."""
        mean = self.preference.sum(axis=0, dtype=np.float64) / max(1, np.count_nonzero(self.published))
        return np.asarray(mean, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class PublishedVectors:
    """The vectors of both sides, and their type in PostgreSQL."""

    items: ItemVectors
    users: UserVectors
    vector_type: str

    def details(self) -> dict[str, Any]:
        return {"dimensions": self.items.embedding.shape[1], "type": self.vector_type}

    def __str__(self) -> str:
        return f"{self.items.embedding.shape[1]} dimensions, {self.vector_type}"


def publish(
    item_factors: Matrix,
    user_factors: Matrix,
    weights: Lengths,
    vector_type: str,
    dimensions: int,
    biases: int = 0,
) -> PublishedVectors:
    """Return the vectors of factors (items, factors) and (users, factors). Raises as `item_vectors` does."""
    items, users = item_vectors(item_factors, dimensions, biases, weights), user_vectors(user_factors, dimensions)
    return PublishedVectors(items, users, vector_type)


def item_vectors(item_factors: Matrix, dimensions: int, biases: int = 0, weights: Lengths | None = None) -> ItemVectors:
    """Return the vectors of item factors (items, factors), padded with zeros to `dimensions`, with the items' `weights`, if any.

    The last `biases` factors say nothing of likeness: `embedding` is the direction of the others. Raises TrainingDiverged for
    factors that are not finite, FactorsCollapsed if all are zero."""
    length, longest, published = _lengths(item_factors, "item")
    divisor = np.full_like(length, longest)
    if weights is not None:
        longest = float((length * weights).max())
        divisor = longest / weights
    latent, latent_length = item_factors, length
    if biases:
        latent = item_factors[:, :-biases]
        latent_length, _, alike = _lengths(latent, "item")
        published &= alike
    return ItemVectors(
        embedding=_divide(latent, latent_length, published, dimensions),
        preference=_divide(item_factors, divisor, published, dimensions),
        length=length,
        published=published,
        longest=longest,
    )


def later_items(factors: Matrix, dimensions: int, longest: float, weights: Lengths) -> tuple[ItemVectors, int]:
    """Return the vectors of items that came after the training, with its M; and the number of those that were longer.

    They are shortened to M. Raises TrainingDiverged as `item_vectors` does."""
    length, most = _length(factors, "item"), longest / weights
    clipped = int(np.count_nonzero(length > most))
    factors = factors * np.minimum(1, most / np.maximum(length, NOTHING))[:, None]
    length = np.minimum(length, most)
    published = length >= COLLAPSED * most
    embedding = _divide(factors, length, published, dimensions)
    preference = _divide(factors, most, published, dimensions)
    return ItemVectors(embedding, preference, length, published, longest), clipped


def user_vectors(user_factors: Matrix, dimensions: int) -> UserVectors:
    """Return the vectors of user factors (users, factors), padded with zeros to `dimensions`. Raises as `item_vectors`."""
    length, _, published = _lengths(user_factors, "user")
    return UserVectors(_divide(user_factors, length, published, dimensions), length, published)


def factors_from(unit: Matrix, length: Lengths, factors: int) -> Matrix:
    """Return the factors, float32 (n, factors), of unit vectors (an item's `embedding`, a user's `preference`) and lengths.

    Rows that were not published are zeros."""
    return (unit[:, :factors] * length[:, None]).astype(np.float32)


def _length(factors: Matrix, side: str) -> Lengths:
    length: Lengths = np.sqrt(np.einsum("ij,ij->i", factors, factors, dtype=np.float64))
    broken = int(np.count_nonzero(~np.isfinite(length)))
    if broken:
        raise TrainingDiverged(what=f"{broken} of {len(length)} {side}s")
    return length


def _lengths(factors: Matrix, side: str) -> tuple[Lengths, float, Mask]:
    length = _length(factors, side)
    longest = float(length.max(initial=0.0))
    if longest < NOTHING:
        raise FactorsCollapsed(side=side, longest=longest)
    return length, longest, length >= COLLAPSED * longest


def _divide(factors: Matrix, by: Lengths, published: Mask, dimensions: int) -> Matrix:
    """Divide published rows by their entry of `by`, in double precision. Other rows and the padding are zero."""
    vectors = np.zeros((len(factors), dimensions), dtype=np.float32)
    where, into = published[:, None], vectors[:, : factors.shape[1]]
    np.divide(factors, by[:, None], out=into, where=where, casting="same_kind")
    return vectors
