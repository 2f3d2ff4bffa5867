"""What an evaluation found, as plain data: stored as JSON, printed by the command line, drawn by the report."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelResult:
    """One model on the test part. A metric is None where it is not defined, for instance the MSE of a model whose scores are
    no preferences."""

    name: str
    metrics: dict[str, float | None]
    seconds: float  # of training
    hyperparameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CurvePoint:
    """The metrics after `iteration` iterations: a training with that many gives this model again.

    `train` finds the training pairs among all items, `validation` the held-out ones among those not trained on; `seconds`
    of training, without the measuring, had passed.
    """

    iteration: int
    train: dict[str, float]
    validation: dict[str, float]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Example:
    """A list that a person can judge: what it is of, and titles with their scores, best first."""

    heading: str
    rows: list[tuple[str, float]]


@dataclass(frozen=True)
class Evaluation:
    """A recommender's model beside the baselines, all on one split. `results` has the recommender's own model first, then
    popularity and item-kNN, then what else was measured; `users` and `items` count all that the split knows."""

    recommender: str
    split: str
    seed: int
    users: int
    items: int
    train_pairs: int
    test_pairs: int
    evaluated_users: int
    results: list[ModelResult]
    taken_at: str  # ISO 8601
    curve: list[CurvePoint] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; `from_dict` gives it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Evaluation":
        """An evaluation from its JSON."""
        return cls(
            **stored
            | {
                "results": [ModelResult(**result) for result in stored["results"]],
                "curve": [CurvePoint(**point) for point in stored["curve"]],
                "examples": [
                    Example(example["heading"], [(title, score) for title, score in example["rows"]])
                    for example in stored["examples"]
                ],
            }
        )
