"""Conversion of ids: an id becomes the one that is written the same, so distinct ids stay distinct. Pure."""

import uuid

import pyarrow as pa
import pyarrow.compute as pc

from recstore.files.archive.contents import NUMBERS
from recstore.types import IdType

EXAMPLES = 3
"""Ids that an error names."""


class NotConvertible(ValueError):
    """Some ids have no counterpart of the other type: how many of how many, and the first of them."""

    def __init__(self, failed: int, total: int, examples: list[str]) -> None:
        super().__init__(f"{failed} of {total}")
        self.failed, self.total, self.examples = failed, total, examples


def convert(ids: pa.Array, found: IdType, wanted: IdType) -> pa.Array:
    """Return for each id of the type `found` the id of the type `wanted` that is written the same, in the same order.

    42 and '42' are written the same, 42 and '042' are not; a uuid is written in lower case with hyphens. Raises NotConvertible.
    """
    if found is wanted:
        return ids
    if found in NUMBERS and wanted in NUMBERS:
        kept = pc.and_(pc.greater_equal(ids, _least(wanted)), pc.less_equal(ids, _most(wanted)))
        if pc.all(kept).as_py() is False:
            outside = ids.filter(pc.invert(kept))
            raise NotConvertible(len(outside), len(ids), [str(number) for number in outside[:EXAMPLES].to_pylist()])
        return ids.cast(wanted.arrow)
    texts = written(ids, found)
    if wanted is IdType.TEXT:
        return pa.array(texts, wanted.arrow)
    converted, failed = [], []
    for text in texts:
        value = _read(text, wanted)
        if value is None:
            failed.append(text)
        converted.append(value)
    if failed:
        shown = failed[:EXAMPLES] if found in NUMBERS else [repr(text) for text in failed[:EXAMPLES]]
        raise NotConvertible(len(failed), len(texts), shown)
    return pa.array(converted, wanted.arrow)


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
        number = int(text) if len(text) <= 20 else None
    except ValueError:
        return None
    return number if number is not None and str(number) == text and _least(wanted) <= number <= _most(wanted) else None


def _least(kind: IdType) -> int:
    return -(1 << 8 * int(kind.arrow.byte_width) - 1)


def _most(kind: IdType) -> int:
    return -_least(kind) - 1
