"""Results of an evaluation as plain data: stored as JSON, printed by the command line, drawn by the report."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter

BASELINES = "biases", "popularity", "item-kNN", "EASE"
"""Names of the models that a recommender's own model has to beat."""


@dataclass(frozen=True)
class ModelResult:
    """One model's metrics on the test part.

    A metric is None if it is not defined, for instance the MSE of a model whose scores are not preferences. `intervals` are
    95 % confidence intervals, `differences` those of the first model's metric minus this one's on the same users; evaluations
    of recstore 0.1.0 have none.
    """

    name: str
    metrics: dict[str, float | None]
    seconds: float  # of training
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    differences: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class CurvePoint:
    """The metrics after `iteration` iterations; a training with that many gives the same model.

    `train` ranks the training pairs among all items, `validation` the held-out pairs among items not trained on. `seconds`
    is the training time until then, without measuring.
    """

    iteration: int
    train: dict[str, float]
    validation: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Example:
    """A list that a person can judge: a heading, and titles with their scores, best first."""

    heading: str
    rows: list[tuple[str, float]]


@dataclass(frozen=True)
class Evaluation:
    """A recommender's model and the baselines, all on one split.

    `results` has the recommender's own model first, then the baselines, then all others. `users` and `items` count every
    user and item of the split.
    """

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
        """Return the fields for JSON, from which `from_dict` makes an equal evaluation."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Evaluation":
        """Return the evaluation that was stored as JSON."""
        return TypeAdapter(cls).validate_python(stored)


def baselines(results: Sequence[ModelResult]) -> list[ModelResult]:
    """Return those of the baselines; the first result is the recommender's own."""
    return [result for result in results[1:] if result.name in BASELINES]
