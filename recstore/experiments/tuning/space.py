"""What may be tuned and within which bounds; and from a trial's parameters to a definition. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from pydantic import ValidationError

from recstore.definition import MAX_FACTORS, Confidence, Definition, Hyperparameters
from recstore.errors import InvalidInput
from recstore.model.interactions import Interactions
from recstore.model.trainers import trainer_names
from recstore.wording import what_is_wrong

Parameters = dict[str, Any]
"""Settings by name: those of `Hyperparameters`, those of `Confidence`, and "confidence" for the latter's function."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, on a log scale where ratios matter."""

    low: float
    high: float
    log: bool = False

    def clipped(self, value: float) -> float:
        """The nearest number in it."""
        return min(max(value, self.low), self.high)

    def around(self, centre: float, spread: float) -> "Range":
        """The part of it within `spread` of its width on either side of `centre`."""
        centre = self.clipped(centre)
        if self.log:
            factor = (self.high / self.low) ** spread
            return replace(self, low=max(self.low, centre / factor), high=min(self.high, centre * factor))
        step = spread * (self.high - self.low)
        return replace(self, low=max(self.low, centre - step), high=min(self.high, centre + step))


@dataclass(frozen=True)
class Choices:
    """One of these values; of a single one it is fixed."""

    values: tuple[Any, ...]


Bounds = Range | Choices

_WEIGHTED = ("regularization", "alpha", "confidence")
_SPECTRAL = ("item_exponent", "singular_exponent")
OWN = {
    "als": _WEIGHTED,
    "spectral": _SPECTRAL,
    "hybrid": (*_WEIGHTED, *_SPECTRAL, "spectral_share", "spectral_weight"),
}
"""The settings that each trainer heeds; one that another package brings is taken to heed what als does."""

BOUNDS: dict[str, Bounds] = {
    "regularization": Range(0.01, 10_000, log=True),
    "alpha": Range(0.1, 500, log=True),
    "confidence": Choices(("bm25", "log", "linear", "binary", "share")),
    "item_exponent": Range(-0.2, 1.0),
    "singular_exponent": Range(0.0, 2.0),
    "spectral_share": Choices((0.25, 0.5, 0.75)),
    "spectral_weight": Range(0.05, 0.95),
}
"""Where the search looks by default."""

EVERYTHING = "als", "spectral", "hybrid"
"""Trainers that are searched over by default."""

EQUAL = 0.01
"""Of the values may differ from the others without making a difference."""

_CONFIDENCE = {"confidence": "function"} | {name: name for name in ("scale", "eps", "k1", "b")}
_NOT_TUNED = ("iterations", "warm_iterations", "seed", "options")
_HYPERPARAMETERS = tuple(name for name in Hyperparameters.model_fields if name not in _NOT_TUNED)
NAMES = (*_HYPERPARAMETERS, *_CONFIDENCE)
"""Every setting that can be searched or gridded over."""


@dataclass(frozen=True)
class Space:
    """Which trainers, how many factors, and the bounds of every other setting."""

    trainers: tuple[str, ...]
    factors: tuple[int, int]  # the least and the most
    bounds: Mapping[str, Bounds]

    def of(self, trainer: str) -> dict[str, Bounds]:
        """The bounds of what a trainer heeds, and of what was asked for beyond that."""
        own = OWN.get(trainer, _WEIGHTED)
        heeded = {name for names in OWN.values() for name in names}
        return {name: bounds for name, bounds in self.bounds.items() if name in own or name not in heeded}

    def scales(self) -> dict[str, str]:
        """Parameter -> "log", "linear" or "categorical", as a plot has them."""
        scales = {"trainer": "categorical", "factors": "log"}
        for trainer in self.trainers:
            for name, bounds in self.of(trainer).items():
                numbers = isinstance(bounds, Range) or all(_is_number(value) for value in bounds.values)
                log = isinstance(bounds, Range) and bounds.log
                scales[name] = ("log" if log else "linear") if numbers else "categorical"
        return scales

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; `narrowed` reads it."""

        def plain(bounds: Bounds) -> Any:
            if isinstance(bounds, Choices):
                return list(bounds.values)
            return {"low": bounds.low, "high": bounds.high, "scale": "log" if bounds.log else "linear"}

        return {
            "trainer": list(self.trainers),
            "factors": {"low": self.factors[0], "high": self.factors[1]},
            **{name: plain(bounds) for name, bounds in self.bounds.items()},
        }


def default_space(train: Interactions) -> Space:
    """Everything, as far as these interactions can tell it apart: where nearly all values are equal, so are the functions
    linear, log and binary."""
    bounds = dict(BOUNDS)
    if np.count_nonzero(train.values != np.median(train.values)) <= EQUAL * len(train):
        bounds["confidence"] = Choices(("bm25", "binary", "share"))
    most = max(1, min(MAX_FACTORS, len(train.items) - 1))
    return Space(EVERYTHING, (min(8, most), most), bounds)


def narrowed(space: Space, given: Mapping[str, Any]) -> Space:
    """`space` with other bounds for some settings: a value fixes it, a list offers choices, a table {low, high, scale}
    gives a range (scale: "log" or "linear"; unset: as it was, else linear). Raises InvalidInput."""
    bounds = dict(space.bounds)
    trainers, factors = space.trainers, space.factors
    for name, wanted in given.items():
        match name:
            case "trainer":
                trainers = tuple(map(str, wanted if isinstance(wanted, list) else [wanted]))
            case "factors":
                factors = _factors(wanted, factors)
            case _:
                check_name(name)
                bounds[name] = _bounds(name, wanted, bounds.get(name))
    for trainer in trainers:
        if trainer not in trainer_names():
            raise InvalidInput(f"There is no trainer named {trainer!r}; choose among: {', '.join(trainer_names())}.")
    made = Space(tuple(dict.fromkeys(trainers)), factors, bounds)
    if not trainers:
        raise InvalidInput("No trainer is left to choose from.")
    for name, limits in made.bounds.items():  # what a definition refuses would fail in every trial
        for value in (limits.low, limits.high) if isinstance(limits, Range) else limits.values:
            settled({name: value})
    return made


def check_name(name: str) -> None:
    """Raises InvalidInput unless this is a setting that can be searched over."""
    if name == "iterations":
        raise InvalidInput(
            "The number of iterations is not searched for: it is read off each training's learning curve. --max-iterations"
            " says where that ends."
        )
    if name not in NAMES:
        raise InvalidInput(f"{name!r} is nothing that can be tuned; there are {', '.join(NAMES)}.")


def _factors(wanted: Any, before: tuple[int, int]) -> tuple[int, int]:
    if isinstance(wanted, Mapping):
        unknown = wanted.keys() - {"low", "high", "scale"}
        low, high = wanted.get("low", before[0]), wanted.get("high", before[1])
    else:
        values = wanted if isinstance(wanted, list) and wanted else [wanted]
        unknown, low, high = set(), values[0], values[-1]
    if unknown or not all(isinstance(value, int) and value >= 1 for value in (low, high)) or low > high:
        raise InvalidInput(f"factors = {wanted!r}: give a number, or a table with the least (low) and the most (high).")
    if high > MAX_FACTORS:
        raise InvalidInput(f"factors = {wanted!r}: {MAX_FACTORS} are the most there can be.")
    return min(low, before[1]), min(high, before[1])


def _bounds(name: str, wanted: Any, before: Bounds | None) -> Bounds:
    if isinstance(wanted, list) and wanted:
        return Choices(tuple(wanted))
    if not isinstance(wanted, Mapping):
        return Choices((wanted,))
    low, high = wanted.get("low", math.nan), wanted.get("high", math.nan)
    scale = wanted.get("scale", "log" if isinstance(before, Range) and before.log else "linear")
    known = not wanted.keys() - {"low", "high", "scale"} and scale in ("log", "linear")
    if not (known and _is_number(low) and _is_number(high) and low < high and (low > 0 or scale == "linear")):
        raise InvalidInput(
            f"{name} = {dict(wanted)!r}: a range has a low, a high above it and perhaps a scale, log (of numbers above 0) or"
            " linear."
        )
    return Range(float(low), float(high), scale == "log")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def grid(lists: Mapping[str, Sequence[str]]) -> list[Parameters]:
    """The product of lists of values, as texts; the last one varies fastest. Raises InvalidInput."""
    for name in lists:
        check_name(name)
    combinations = [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]
    points = [settled(combination) for combination in combinations]
    return [point for n, point in enumerate(points) if point not in points[:n]]


def settled(parameters: Mapping[str, Any]) -> Parameters:
    """The same with values of their types, as a definition takes them. Raises InvalidInput naming the wrong one."""
    made: Parameters = {}
    for name, value in parameters.items():
        model, field = (Confidence, _CONFIDENCE[name]) if name in _CONFIDENCE else (Hyperparameters, name)
        try:
            made[name] = getattr(model.model_validate({field: value}), field)
        except ValidationError as error:
            raise InvalidInput(f"{name} = {value!r}: {what_is_wrong(error.errors()[0])}.") from None
        if name == "factors" and made[name] is not None and made[name] > MAX_FACTORS:
            raise InvalidInput(f"factors = {value!r}: {MAX_FACTORS} are the most there can be.")
    return made


def applied(definition: Definition, parameters: Parameters, iterations: int | None = None) -> Definition:
    """The definition with these settings, and this number of iterations."""
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


def present(definition: Definition, names: Iterable[str]) -> Parameters:
    """The definition's own values of these settings."""
    return {
        name: getattr(definition.confidence, _CONFIDENCE[name])
        if name in _CONFIDENCE
        else getattr(definition.hyperparameters, name)
        for name in names
    }


def within(value: Any, bounds: Bounds) -> bool:
    """Whether the bounds allow this value."""
    if isinstance(bounds, Choices):
        return value in bounds.values
    return _is_number(value) and bounds.low <= value <= bounds.high


def inside(value: Any, bounds: Bounds) -> Any:
    """The value, or if the bounds do not allow it the nearest number, or the first choice."""
    if within(value, bounds):
        return value
    return bounds.values[0] if isinstance(bounds, Choices) else bounds.clipped(value)


def narrow(bounds: Bounds, centre: Any, spread: float, *, keep_choice: bool = False) -> Bounds:
    """The part of a range within `spread` of its width on either side of `centre`; all of the choices, or with
    `keep_choice` only the one."""
    if isinstance(bounds, Range):
        return bounds.around(centre, spread)
    return Choices((centre,)) if keep_choice else bounds


def present_in(space: Space, parameters: Parameters) -> bool:
    """Whether the space has these parameters of one of its trainers."""
    low, high = space.factors
    if parameters["trainer"] not in space.trainers or not low <= parameters["factors"] <= high:
        return False
    return all(within(parameters[name], bounds) for name, bounds in space.of(parameters["trainer"]).items())


def words(parameters: Parameters, iterations: int | None = None) -> str:
    """The parameters for people: "als, 128 factors, regularization 31.2, alpha 40, confidence bm25, 15 iterations"."""
    told = [str(parameters["trainer"])] if "trainer" in parameters else []
    told += [f"{parameters['factors']} factors"] if parameters.get("factors") else []
    for name, value in parameters.items():
        if name not in ("trainer", "factors"):
            told.append(f"{name.replace('_', ' ')} {f'{value:g}' if isinstance(value, float) else value}")
    told += [f"{iterations} iterations"] if iterations else []
    return ", ".join(told)
