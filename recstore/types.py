"""The supported types of ids, and their form in SQL, in Arrow and at the command line."""

import uuid
from enum import Enum
from typing import TYPE_CHECKING

from recstore.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

type_of_oid = {21: "smallint", 23: "integer", 20: "bigint", 2950: "uuid", 25: "text", 1043: "text"}
"""Id types by type oid. varchar counts as text, since an index on varchar serves comparisons with text."""

NUMERIC_OID = 1700

NUMBER_OIDS = frozenset({20, 21, 23, 700, 701, NUMERIC_OID})
"""Type oids of value columns: int8, int2, int4, float4, float8, numeric."""

TIMESTAMP_OIDS = frozenset({1114, 1184, 1082})
"""Type oids of last_at columns: timestamp, timestamptz, date."""


MAX_ID_BYTES = 2600
"""Bytes of a text id. An entry of a B-tree holds 2,704 with its header and an item's other columns; whether a longer id fits
depends on how far it can be compressed."""


class IdType(Enum):
    """A type of ids. The value is its SQL name, which every object of the recommender uses."""

    SMALLINT = "smallint"
    INTEGER = "integer"
    BIGINT = "bigint"
    UUID = "uuid"
    TEXT = "text"

    @property
    def parameter_sql(self) -> str:
        """The SQL type of function parameters: bigint for every integer, so that each fits."""
        return "bigint" if self in (IdType.SMALLINT, IdType.INTEGER) else self.value

    @property
    def fits_sql(self) -> str:
        """The SQL condition on a number, uuid or text that it is an id of this type."""
        bits = {IdType.SMALLINT: 15, IdType.INTEGER: 31}.get(self)
        return "IS NOT NULL" if bits is None else f"BETWEEN {-(2**bits)} AND {2**bits - 1}"

    @property
    def arrow(self) -> "pa.DataType":
        """The Arrow type of an `IdMap` of this id type."""
        import pyarrow as pa  # takes a tenth of a second, so only for reading and writing in bulk

        return {
            IdType.SMALLINT: pa.int16(),
            IdType.INTEGER: pa.int32(),
            IdType.BIGINT: pa.int64(),
            IdType.UUID: pa.binary(16),
            IdType.TEXT: pa.string(),
        }[self]

    def parse(self, text: str, what: str) -> int | str | uuid.UUID:
        """Convert text to an id. Raises InvalidInput, which names `what`, for example "item id"."""
        try:
            if self is IdType.TEXT:
                return text
            if self is IdType.UUID:
                return uuid.UUID(text)
            number, bits = int(text), {IdType.SMALLINT: 15, IdType.INTEGER: 31, IdType.BIGINT: 63}[self]
            if not -(2**bits) <= number < 2**bits:
                raise ValueError
            return number
        except ValueError:
            raise InvalidInput(f"{text!r} is not a valid {what}: its type is {self.value}.") from None
