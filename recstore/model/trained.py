"""A trained model as a generation keeps it: its items, and what folding users in against them takes."""

from dataclasses import dataclass
from typing import Any

from recstore.definition import Definition
from recstore.model.confidence import ConfidenceModel
from recstore.model.interactions import IdMap
from recstore.model.trainers import FoldIn


@dataclass(frozen=True, eq=False)
class Stored:
    """Item i of `fold_in` is the item of `items` at that position. A collapsed item's factors are zeros."""

    generation: int
    items: IdMap
    item_users: Any  # int64 (items,), with the pairs that were held out
    fold_in: FoldIn
    confidence: ConfidenceModel
    alpha: float
    trainer: str
    definition: Definition
    held_out: dict[str, Any] | None  # see `recstore.model.held_out.HeldOut.stored`
