"""A generation: its number, and the names of its tables and indexes. Runs no statement."""

from dataclasses import dataclass
from typing import Literal

from recstore.sql.objects import Registered

Side = Literal["items", "users", "seen"]

SIDES: tuple[Side, ...] = ("items", "users", "seen")


@dataclass(frozen=True)
class Generation:
    """One training's result in a recommender's schema, complete or not."""

    recommender: Registered
    number: int

    def __str__(self) -> str:
        return f"generation {self.number}"

    def table(self, side: Side) -> str:
        """Return the generation's own table of a side, quoted."""
        return self.recommender.relation(f"_{side}_{self.number}")

    @property
    def items(self) -> str:
        return self.table("items")

    @property
    def users(self) -> str:
        return self.table("users")

    @property
    def seen(self) -> str:
        return self.table("seen")

    @property
    def keys(self) -> dict[str, int]:
        """Parameters of the queries about this generation."""
        return {"recommender_id": self.recommender.id, "generation": self.number}

    def index(self, side: Side, what: str) -> str:
        """Return the name of an index, not quoted: `what` is a lookup column or, for HNSW, "<column>_hnsw"."""
        return f"_{side}_{self.number}_{what}"

    def hnsw(self, side: Side, column: str) -> str:
        """Return the name of the HNSW index of a vector column, not quoted."""
        return self.index(side, f"{column}_hnsw")
