"""The content of an exported file: its arrays by name, its description of itself, and the conversion of its ids. Pure.

One .npz without pickle. The arrays are the columns of `item_vectors` and `user_vectors`, a row per item and per user, in the
order of the ids; `about` is JSON. docs/files.md is the page for people.
"""

import hashlib
import uuid
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from recstore.definition import Confidence, Definition, Hyperparameters, Positive
from recstore.model.ratings import FUNCTION
from recstore.model.vectors import ItemWeights
from recstore.types import IdType

FORMAT = "recstore generation"
VERSION = 1
"""The format's version: it rises when the recstore before could no longer read a file."""

Array = NDArray[Any]

PADDED_BYTES = 64 << 20
"""Bytes that text ids may always take as one fixed-width array."""

PADDED_FACTOR = 4
"""The factor over their UTF-8 form that they may take beyond that: one long id must not widen a million short ones."""

NUMBERS: dict[IdType, type[np.signedinteger[Any]]] = {
    IdType.SMALLINT: np.int16,
    IdType.INTEGER: np.int32,
    IdType.BIGINT: np.int64,
}


class Constants(Confidence):
    """The confidence function as it was fitted."""

    scale_factor: Positive
    mean_total: Positive
    half_life: Positive | None = None  # type: ignore[assignment]  # in seconds
    reference: int | None = Field(None, ge=-(2**63), lt=2**63)

    @model_validator(mode="after")
    def _with_exponents(self) -> "Constants":
        if self.function == "power" and not {"activity_exponent", "rarity_exponent"} <= self.model_fields_set:
            raise ValueError("the function power has two exponents")
        return self


class RatingConstants(BaseModel):
    """The mean, the unit and the range of ratings."""

    mean: FiniteFloat
    scale_factor: Positive
    lowest: FiniteFloat
    highest: FiniteFloat


class HeldOutBounds(BaseModel):
    """Bounds that choose the held-out pairs."""

    users_below: int = Field(ge=0, lt=2**64)
    pairs_below: int = Field(ge=0, lt=2**64)
    min_users: int = Field(ge=0)


class WeightConstants(BaseModel):
    """Constants of `ItemWeights`."""

    exponent: float = Field(0.0, ge=-1, le=1)
    scale: float = Field(1.0, gt=0, allow_inf_nan=False)


class About(BaseModel):
    """The JSON in `about`. What a newer recstore adds is ignored; `version` rises when that would be wrong."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal["recstore generation"] = "recstore generation"
    version: int = VERSION
    recommender: str
    generation: int
    exported_at: datetime
    ready_at: datetime | None = None
    user_type: IdType
    item_type: IdType
    users: int = Field(ge=0)
    """The number of users it was trained on, whether or not they are in the file."""
    items: int = Field(ge=1)
    factors: int = Field(ge=1)
    longest: float | None = Field(None, gt=0, allow_inf_nan=False)
    """The length by which `item_preference` is divided; None in a file of an older recstore: the longest item's."""
    definition: Definition
    """The whole configuration of its training."""
    training: dict[str, Any]
    """The hyperparameters, unset ones as the data made them, and what the training reported."""
    confidence: dict[str, Any]
    fold_in: dict[str, Any] | None = None
    held_out: dict[str, Any] | None = None
    """The pairs the items were not trained on, without the key and the items' own numbers (`item_held_out`)."""
    filters: list[dict[str, Any]] = []
    metrics: dict[str, Any] | None = None
    snapshot: dict[str, Any] = {}
    versions: dict[str, str] = {}

    @property
    def weights(self) -> ItemWeights:
        """Return the weights of its items in the lists. Raises pydantic's ValidationError."""
        given = WeightConstants.model_validate(self.training.get("item_weights", {}))
        return ItemWeights(**given.model_dump()) if given.exponent else ItemWeights()

    @property
    def rated(self) -> bool:
        """True if the model predicts ratings."""
        return self.confidence.get("function") == FUNCTION

    def check_parts(self) -> None:
        """Check what a fold-in and a gate compute with. Raises pydantic's ValidationError."""
        if self.fold_in is not None:
            (RatingConstants if self.rated else Constants).model_validate(self.confidence)
            Hyperparameters.model_validate({"alpha": self.training.get("alpha")})
        if self.held_out is not None:
            HeldOutBounds.model_validate(self.held_out)
        WeightConstants.model_validate(self.training.get("item_weights", {}))


def key_digest(key: uuid.UUID) -> str:
    """Return a digest that is equal for recommenders that hold out the same pairs, and does not reveal the key."""
    return hashlib.blake2b(b"recstore held out", digest_size=16, key=key.bytes).hexdigest()


def id_arrays(side: str, ids: pa.Array, kind: IdType) -> dict[str, Array]:
    """Return the ids as arrays by name: numbers in their own type, uuid and text as NumPy's text.

    Where that would be too wide, return the UTF-8 bytes of all, one after the other, and where each ends.
    """
    if kind in NUMBERS:
        return {f"{side}_id": np.asarray(ids).astype(NUMBERS[kind])}
    if kind is IdType.UUID:
        return {f"{side}_id": np.array(written(ids, kind), dtype="U36")}
    texts: list[str] = ids.to_pylist()
    ends = np.cumsum([len(text.encode()) for text in texts], dtype=np.int64)
    width = max(1, max(map(len, texts), default=1))
    packed = (int(ends[-1]) if len(ends) else 0) + ends.nbytes
    if 4 * width * len(texts) > max(PADDED_BYTES, PADDED_FACTOR * packed):
        return {
            f"{side}_id_utf8": np.frombuffer("".join(texts).encode(), dtype=np.uint8),
            f"{side}_id_end": ends,
        }
    return {f"{side}_id": np.array(texts, dtype=f"U{width}")}


def ids_of(arrays: dict[str, Array], side: str, kind: IdType) -> pa.Array:
    """Return the ids of `id_arrays` in the file's order. Raises ValueError that says what is wrong."""
    if kind in NUMBERS:
        numbers, info = arrays[f"{side}_id"], np.iinfo(NUMBERS[kind])
        if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
            raise ValueError(f"{side}_id is not a list of whole numbers")
        if len(numbers) and not (info.min <= int(numbers.min()) and int(numbers.max()) <= info.max):
            raise ValueError(f"{side}_id has numbers beyond {kind.value}")
        return pa.array(numbers.astype(NUMBERS[kind]), kind.arrow)
    texts = _texts(arrays, side)
    if kind is IdType.UUID:
        try:
            return pa.array([uuid.UUID(text).bytes for text in texts], kind.arrow)
        except ValueError:
            raise ValueError(f"{side}_id has a text that is no uuid") from None
    if any("\0" in text for text in texts):
        raise ValueError(f"{side}_id has a text with a zero byte, which Postgres cannot hold")
    try:
        return pa.array(texts, kind.arrow)
    except UnicodeEncodeError:
        raise ValueError(f"{side}_id has a text that is not valid Unicode") from None


def _texts(arrays: dict[str, Array], side: str) -> list[str]:
    if f"{side}_id" in arrays:
        padded = arrays[f"{side}_id"]
        if padded.dtype.kind != "U" or padded.ndim != 1:
            raise ValueError(f"{side}_id is not a list of texts")
        return list(map(str, padded.tolist()))
    packed, ends = arrays[f"{side}_id_utf8"], arrays[f"{side}_id_end"]
    if packed.dtype != np.uint8 or packed.ndim != 1 or ends.dtype.kind not in "iu" or ends.ndim != 1:
        raise ValueError(f"{side}_id_utf8 and {side}_id_end are not bytes and positions")
    places = [0, *map(int, ends)]
    if places[-1] != len(packed) or places != sorted(places):
        raise ValueError(f"{side}_id_end does not fit {side}_id_utf8")
    whole = packed.tobytes()
    try:
        return [whole[start:end].decode() for start, end in pairwise(places)]
    except UnicodeDecodeError:
        raise ValueError(f"{side}_id_utf8 is not UTF-8") from None


def convert(ids: pa.Array, found: IdType, wanted: IdType) -> tuple[pa.Array, list[str]]:
    """Return for each id of the type `found` the id of the type `wanted` that is written the same, NULL where there is none;
    and the texts of those.

    42 and '42' are written the same, 42 and '042' are not; a uuid is written in lower case with hyphens. So distinct ids
    stay distinct.
    """
    if found is wanted:
        return ids, []
    texts = written(ids, found)
    converted = texts if wanted is IdType.TEXT else [_read(text, wanted) for text in texts]
    failed = [text for text, value in zip(texts, converted, strict=True) if value is None]
    return pa.array(converted, wanted.arrow), failed


def written(ids: pa.Array, kind: IdType) -> list[str]:
    """Return the text that each id is written as."""
    if kind is IdType.UUID:
        return [str(uuid.UUID(bytes=value)) for value in ids.to_pylist()]
    texts: list[str] = ids.cast(pa.string()).to_pylist()
    return texts


def _read(text: str, wanted: IdType) -> int | bytes | None:
    """Return the number or uuid that is written exactly so, if there is one."""
    try:
        if wanted is IdType.UUID:
            found = uuid.UUID(text)
            return found.bytes if str(found) == text else None
        number = int(text) if len(text) <= 20 else 0
    except ValueError:
        return None
    limits = np.iinfo(NUMBERS[wanted])
    return number if str(number) == text and limits.min <= number <= limits.max else None
