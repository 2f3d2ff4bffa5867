"""The settings that can be tuned and their bounds; and from a trial's parameters to a definition. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from recstore.definition import MAX_FACTORS, RATINGS, Confidence, Definition, Hyperparameters
from recstore.errors import InvalidInput
from recstore.wording import what_is_wrong

if TYPE_CHECKING:
    from recstore.model.interactions import Interactions

Parameters = dict[str, Any]
"""Settings by name: those of `Hyperparameters`, those of `Confidence`, and "confidence" for the latter's function."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, on a log scale where ratios matter."""

    low: float
    high: float
    log: bool = False

    def allows(self, value: Any) -> bool:
        return is_number(value) and bool(self.low <= value <= self.high)

    def nearest(self, value: float) -> float:
        """Return the allowed number that is nearest."""
        return min(max(value, self.low), self.high)

    def around(self, centre: float, spread: float) -> "Range":
        """Return the part within `spread` of the width on either side of `centre`."""
        centre = self.nearest(centre)
        if self.log:
            factor = (self.high / self.low) ** spread
            return replace(self, low=max(self.low, centre / factor), high=min(self.high, centre * factor))
        step = spread * (self.high - self.low)
        return replace(self, low=max(self.low, centre - step), high=min(self.high, centre + step))


@dataclass(frozen=True)
class Choices:
    """One of these values; a single one is fixed."""

    values: tuple[Any, ...]

    def allows(self, value: Any) -> bool:
        return value in self.values

    def nearest(self, value: Any) -> Any:
        """Return the value if it is allowed, else the first choice."""
        return value if value in self.values else self.values[0]

    def around(self, centre: Any, spread: float) -> "Choices":  # noqa: ARG002
        return self


Bounds = Range | Choices

_POWERS = ("activity_exponent", "rarity_exponent")
_WEIGHTED = ("regularization", "alpha", "confidence", *_POWERS, "popularity_exponent")
_SPECTRAL = ("user_exponent", "view_exponent", "item_exponent", "ridge")
OWN = {
    "als": _WEIGHTED,
    "spectral": _SPECTRAL,
    "hybrid": (*_WEIGHTED, *_SPECTRAL, "spectral_share", "spectral_weight"),
    RATINGS: ("regularization",),
}
"""The settings that each trainer uses; a trainer of another package is assumed to use those of als."""

BOUNDS: dict[str, Bounds] = {
    "regularization": Range(0.01, 10_000, log=True),
    "alpha": Range(0.1, 500, log=True),
    "confidence": Choices(("bm25", "power", "log", "linear", "binary", "share")),
    "activity_exponent": Range(0, 1),
    "rarity_exponent": Range(0, 0.6),
    "popularity_exponent": Range(-0.25, 0.35),
    "user_exponent": Choices((0.25, 0.5)),
    "view_exponent": Choices((0.0, 0.25, 0.4, 0.5)),
    "item_exponent": Range(-0.1, 0.6),
    "ridge": Range(0.003, 0.3, log=True),
    "spectral_share": Choices((0.25, 0.5, 0.75)),
    "spectral_weight": Range(0.05, 0.95),
}
"""The default bounds of a search."""

EVERYTHING = "als", "spectral", "hybrid"
"""The trainers of a search by default."""

MOST_RATING_FACTORS = 256
"""Largest default number of factors of ratings: more than 64 hardly help, and solving costs their cube."""

_CONFIDENCE = {"confidence": "function"} | {name: name for name in ("scale", "eps", "k1", "b", *_POWERS)}
_NOT_TUNED = ("iterations", "warm_iterations", "seed", "options")
NAMES = (*(name for name in Hyperparameters.model_fields if name not in _NOT_TUNED), *_CONFIDENCE)
"""Every setting that a search or a grid can vary."""


@dataclass(frozen=True)
class Space:
    """The trainers, the least and the most factors, and the bounds of every other setting of a search."""

    trainers: tuple[str, ...]
    factors: tuple[int, int]
    bounds: Mapping[str, Bounds]

    def of(self, trainer: str) -> dict[str, Bounds]:
        """Return the bounds of the settings that a trainer uses, and of those asked for beyond the default ones."""
        own = OWN.get(trainer, _WEIGHTED)
        used = {name for names in OWN.values() for name in names}
        return {name: bounds for name, bounds in self.bounds.items() if name in own or name not in used}

    def scales(self) -> dict[str, str]:
        """Return "log", "linear" or "categorical" by parameter, for a plot."""
        scales = {"trainer": "categorical", "factors": "log"}
        for trainer in self.trainers:
            for name, bounds in self.of(trainer).items():
                if isinstance(bounds, Range):
                    scales[name] = "log" if bounds.log else "linear"
                else:
                    scales[name] = "linear" if all(map(is_number, bounds.values)) else "categorical"
        return scales

    def has(self, parameters: Parameters) -> bool:
        """Return whether these parameters of one of the trainers are within the bounds."""
        low, high = self.factors
        if parameters["trainer"] not in self.trainers or not low <= parameters["factors"] <= high:
            return False
        return all(bounds.allows(parameters[name]) for name, bounds in self.of(parameters["trainer"]).items())


def default_space(train: "Interactions", *, explicit: bool = False) -> Space:
    """Return the default bounds, without the functions that are the same on these interactions: where nearly all values
    are equal, linear, log, binary and share are forms of power."""
    bounds = dict(BOUNDS)
    # here, since rows of results name a search's parameters where nothing trains
    from recstore.model.confidence import equal_values

    if equal_values(train):
        bounds["confidence"] = Choices(("power", "bm25"))
    most = max(1, min(MAX_FACTORS, len(train.items) - 1))
    if explicit:
        most = min(most, MOST_RATING_FACTORS)
        bounds["regularization"] = Range(0.1, 5, log=True)
        return Space((RATINGS,), (min(8, most), most), bounds)
    return Space(EVERYTHING, (min(8, most), most), bounds)


def narrowed(space: Space, changes: Mapping[str, Any]) -> Space:
    """Return `space` with other bounds for some settings: a value fixes a setting, a list offers choices, and a table
    {low, high, scale} gives a range (scale: "log" or "linear"; unset: as before, else linear). Raises InvalidInput."""
    bounds = dict(space.bounds)
    trainers, factors = space.trainers, space.factors
    for name, wanted in changes.items():
        if name == "trainer":
            trainers = tuple(dict.fromkeys(map(str, wanted if isinstance(wanted, list) else [wanted])))
        elif name == "factors":
            factors = _factors(wanted, factors)
        else:
            check_name(name)
            made = bounds[name] = _bounds(name, wanted, bounds.get(name))
            for value in (made.low, made.high) if isinstance(made, Range) else made.values:
                settled({name: value})  # what a definition refuses would fail in every trial
    from recstore.model.trainers import trainer_names

    for trainer in trainers:
        if trainer not in trainer_names():
            raise InvalidInput(f"There is no trainer named {trainer!r}; choose among: {', '.join(trainer_names())}.")
    if not trainers:
        raise InvalidInput("No trainer is left to choose from.")
    return Space(trainers, factors, bounds)


def check_name(name: str) -> None:
    """Raise InvalidInput unless this setting can be varied."""
    if name == "iterations":
        raise InvalidInput(
            "The number of iterations is not searched for: it is read off each training's learning curve."
            " --max-iterations is where that ends."
        )
    if name not in NAMES:
        raise InvalidInput(f"{name!r} cannot be tuned; choose among: {', '.join(NAMES)}.")


def _factors(wanted: Any, before: tuple[int, int]) -> tuple[int, int]:
    if isinstance(wanted, Mapping):
        unknown = wanted.keys() - {"low", "high", "scale"}
        low, high = wanted.get("low", before[0]), wanted.get("high", before[1])
    else:
        values = wanted if isinstance(wanted, list) and wanted else [wanted]
        unknown, low, high = set(), values[0], values[-1]
    if unknown or not all(isinstance(value, int) and value >= 1 for value in (low, high)) or low > high:
        raise InvalidInput(f"factors = {wanted!r}: give a number, or a table with the least (low) and the most (high).")
    settled({"factors": high})
    return min(low, before[1]), min(high, before[1])


def _bounds(name: str, wanted: Any, before: Bounds | None) -> Bounds:
    if not isinstance(wanted, Mapping):
        return Choices(tuple(wanted) if isinstance(wanted, list) and wanted else (wanted,))
    low, high = wanted.get("low", math.nan), wanted.get("high", math.nan)
    scale = wanted.get("scale", "log" if isinstance(before, Range) and before.log else "linear")
    known = not wanted.keys() - {"low", "high", "scale"} and scale in ("log", "linear")
    if not (known and is_number(low) and is_number(high) and low < high and (low > 0 or scale == "linear")):
        raise InvalidInput(
            f"{name} = {dict(wanted)!r}: a range has a low, a high above it and optionally a scale: linear, or log for"
            " numbers above 0."
        )
    return Range(float(low), float(high), scale == "log")


def is_number(value: Any) -> bool:
    """Return whether this is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def grid(lists: Mapping[str, Sequence[str]]) -> list[Parameters]:
    """Return the product of lists of values, which are texts; the last one varies fastest. Raises InvalidInput."""
    for name in lists:
        check_name(name)
    points = [settled(dict(zip(lists, values, strict=True))) for values in product(*lists.values())]
    return [point for n, point in enumerate(points) if point not in points[:n]]


def settled(parameters: Mapping[str, Any]) -> Parameters:
    """Return the parameters with values of their types, as a definition takes them. Raises InvalidInput."""
    made: Parameters = {}
    for name, value in parameters.items():
        model, field = (Confidence, _CONFIDENCE[name]) if name in _CONFIDENCE else (Hyperparameters, name)
        try:
            made[name] = getattr(model.model_validate({field: value}), field)
        except ValidationError as error:
            raise InvalidInput(f"{name} = {value!r}: {what_is_wrong(error.errors()[0])}.") from None
        if name == "factors" and made[name] is not None and made[name] > MAX_FACTORS:
            raise InvalidInput(f"factors = {value!r}: {MAX_FACTORS} is the maximum.")
    return made


def applied(definition: Definition, parameters: Parameters, iterations: int | None = None) -> Definition:
    """Return the definition with these settings, and this number of iterations."""
    weighting = {_CONFIDENCE[name]: value for name, value in parameters.items() if name in _CONFIDENCE}
    training = {name: value for name, value in parameters.items() if name not in _CONFIDENCE}
    if iterations is not None:
        training["iterations"] = iterations
    return definition.model_copy(
        update={
            "confidence": definition.confidence.model_copy(update=weighting),
            "hyperparameters": definition.hyperparameters.model_copy(update=training),
        }
    )


def present(definition: Definition) -> Parameters:
    """Return the definition's own values of the settings that can be varied."""
    weighting, training = definition.confidence, definition.hyperparameters
    return {
        name: getattr(weighting, _CONFIDENCE[name]) if name in _CONFIDENCE else getattr(training, name)
        for name in NAMES
    }


def words(parameters: Parameters, iterations: int | None = None) -> str:
    """Return the parameters for people: "als, 128 factors, alpha 40, confidence bm25, 15 iterations"."""
    parts = [str(parameters["trainer"])] if "trainer" in parameters else []
    parts += [f"{parameters['factors']} factors"] if parameters.get("factors") else []
    for name, value in parameters.items():
        idle = name in _POWERS and parameters.get("confidence", "power") != "power"
        if name not in ("trainer", "factors") and not idle:
            parts.append(f"{name.replace('_', ' ')} {f'{value:g}' if isinstance(value, float) else value}")
    parts += [f"{iterations} iterations"] if iterations else []
    return ", ".join(parts)
