"""A trained model as a generation keeps it: its items, and what folding users in against them takes."""

from dataclasses import dataclass, replace
from typing import Any

from recstore.definition import Definition
from recstore.model import trainers
from recstore.model.confidence import Weighted, Weighting
from recstore.model.held_out import HeldOut
from recstore.model.interactions import IdMap, Interactions
from recstore.model.trainers import FoldIn, QueryFoldIn
from recstore.model.vectors import ItemWeights


@dataclass(frozen=True, eq=False)
class Stored:
    """A model; item i of `fold_in` is the item at position i of `items`. The factors of a collapsed item are zeros."""

    generation: int
    items: IdMap
    item_users: Any  # int64 (items,), with the pairs that were held out
    fold_in: FoldIn
    confidence: Weighting
    alpha: float
    trainer: str
    definition: Definition
    held_out: dict[str, Any] | None  # see `held_out.HeldOut.stored`
    weights: ItemWeights  # of the items in the lists, by `item_users`

    def details(self) -> dict[str, Any]:
        """Return the generation's number."""
        return {"generation": self.generation}

    def __str__(self) -> str:
        return f"generation {self.generation}"

    def for_queries(self) -> QueryFoldIn | None:
        """Return the input for folding in by SQL; None if the trainer cannot do that."""
        found = trainers.for_queries(self.trainer, self.fold_in)
        return found and replace(found, idf=self.confidence.idf)


def of(
    generation: int,
    definition: Definition,
    interactions: Interactions,
    held: HeldOut,
    weighted: Weighted,
    fold_in: FoldIn,
) -> Stored:
    """Return a training's model as it will be read back after its publication."""
    return Stored(
        generation=generation,
        items=interactions.items,
        item_users=interactions.item_users(),
        fold_in=fold_in,
        confidence=weighted.model,
        alpha=weighted.alpha,
        trainer=definition.hyperparameters.trainer,
        definition=definition,
        held_out=held.stored(interactions),
        weights=ItemWeights.of(interactions.item_users(), definition.hyperparameters.list_exponent),
    )
