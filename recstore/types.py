"""The id types an application may have, and how each is written in SQL, Arrow and at the command line."""

import uuid
from enum import Enum
from typing import TYPE_CHECKING

from recstore.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

type_of_oid = {21: "smallint", 23: "integer", 20: "bigint", 2950: "uuid", 25: "text", 1043: "text"}
"""Type oids of the source's id columns, to our types. varchar is text: an index on varchar serves text comparisons."""

NUMBER_OIDS = frozenset({20, 21, 23, 700, 701, 1700})
"""int8, int2, int4, float4, float8, numeric: what a value column may have."""

TIMESTAMP_OIDS = frozenset({1114, 1184, 1082})
"""timestamp, timestamptz, date: what a last_at column may have."""


class IdType(Enum):
    """An id type; the value is its SQL name, kept in every object of the recommender."""

    SMALLINT = "smallint"
    INTEGER = "integer"
    BIGINT = "bigint"
    UUID = "uuid"
    TEXT = "text"

    @property
    def parameter_sql(self) -> str:
        """The type of function parameters: integer for smallint, so that a literal fits."""
        return "integer" if self is IdType.SMALLINT else self.value

    @property
    def arrow(self) -> "pa.DataType":
        """The Arrow type of an `IdMap` of this id type."""
        import pyarrow as pa  # a tenth of a second, for those only who read or write in bulk

        return {
            IdType.SMALLINT: pa.int16(),
            IdType.INTEGER: pa.int32(),
            IdType.BIGINT: pa.int64(),
            IdType.UUID: pa.binary(16),
            IdType.TEXT: pa.string(),
        }[self]

    def parse(self, text: str, what: str) -> int | str | uuid.UUID:
        """The id that `text` writes; raises InvalidInput naming `what` (for instance "item id")."""
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
            raise InvalidInput(f"{text!r} can not be the {what}: its type is {self.value}.") from None
