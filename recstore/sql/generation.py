"""A generation: its number, and the names of its tables and indexes. Runs no statement."""

from dataclasses import dataclass
from typing import Literal

from recstore.sql.objects import Registered

Side = Literal["items", "users", "seen", "fold_in", "basis", "refreshed"]

SIDES: tuple[Side, ...] = ("items", "users", "seen", "fold_in", "basis", "refreshed")


MIN_USERS = 3
"""Least number of distinct users of an item that similar_items() returns by default."""


def sides(*, seen: bool, fold_in: bool) -> list[Side]:
    """Return the tables of a generation that publishes seen items, and what SQL needs to fold in users, as a run builds it."""
    optional: dict[Side, bool] = {"seen": seen, "fold_in": fold_in, "basis": fold_in, "refreshed": False}
    return [side for side in SIDES if optional.get(side, True)]


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
    def tables(self) -> list[str]:
        """Every table that it may have, quoted."""
        return [self.table(side) for side in SIDES]

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
    def fold_in(self) -> str:
        return self.table("fold_in")

    @property
    def basis(self) -> str:
        return self.table("basis")

    @property
    def refreshed(self) -> str:
        return self.table("refreshed")

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
