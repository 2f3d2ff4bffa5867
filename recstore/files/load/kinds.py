"""What a text value could be, and from all values of a column the narrowest type that holds them. Knows no database."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from enum import IntEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MISFITS = 0.05
"""The share of values that may be plain text in a column that otherwise has one type: their lines are then bad."""

KEPT_TEXTS = 100_000
"""Values that are kept as possible misfits; a column with more is text."""


class Kind(IntEnum):
    """What one value could be. A code is digits that a number would not keep: leading zeros, a plus, too many of them."""

    INTEGER = 0
    CODE = 1
    DECIMAL = 2
    BOOLEAN = 3
    DATE = 4
    TIMESTAMP = 5
    TIMESTAMPTZ = 6
    UUID = 7
    TEXT = 8


_DAY = "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_TIME = "[ T]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,6}0{0,3})?)?"
_PATTERNS = {
    Kind.INTEGER: "^(0|-?[1-9][0-9]{0,17})$",
    Kind.CODE: "^[+-]?[0-9]+$",
    Kind.DECIMAL: "^-?((0|[1-9][0-9]{0,200})([.][0-9]{0,100})?|[.][0-9]{1,100})([eE][+-]?[0-9]{1,2})?$",
    Kind.BOOLEAN: "^(?i:true|false|t|f)$",
    Kind.DATE: f"^{_DAY}$",
    Kind.TIMESTAMP: f"^{_DAY}{_TIME}$",
    Kind.TIMESTAMPTZ: f"^{_DAY}{_TIME}(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)$",
    Kind.UUID: "^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$",
}
_BIGINT = "^-?[1-9][0-9]{18}$"
_LONGEST = 310
_SURE_DIGITS = 15
"""Digits that a double always keeps."""


def classify(values: pa.Array) -> NDArray[np.uint8]:
    """The `Kind` of each of an array of strings without NULLs."""
    kinds = np.full(len(values), Kind.TEXT, np.uint8)
    if not len(values):
        return kinds
    if _are_plain_digits(values):
        kinds[:] = Kind.INTEGER
        return kinds
    left = np.flatnonzero(pc.less_equal(pc.binary_length(values), _LONGEST).to_numpy(zero_copy_only=False))
    for kind, pattern in _PATTERNS.items():
        if not len(left):
            break
        rest = values.take(pa.array(left))
        found = pc.match_substring_regex(rest, pattern).to_numpy(zero_copy_only=False)
        if not found.any():
            continue
        kinds[left[found]] = kind
        if kind in (Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ):
            days = pc.utf8_slice_codeunits(rest.filter(pa.array(found)), 0, 10)
            kinds[left[found][~_real_days(days)]] = Kind.TEXT
        elif kind == Kind.CODE:
            long = np.flatnonzero(pc.match_substring_regex(rest, _BIGINT).to_numpy(zero_copy_only=False))
            fitting = [n for n in long if -(2**63) <= int(rest[int(n)].as_py()) < 2**63]
            kinds[left[fitting]] = Kind.INTEGER
        left = left[~found]
    return kinds


def _are_plain_digits(values: pa.Array) -> bool:
    """Whether all are whole numbers of up to 18 digits without sign or leading zeros: the usual ids, quickly."""
    _, offsets, data = values.buffers()
    bounds = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    if bounds[0] == bounds[-1]:
        return False
    marks = np.frombuffer(data, np.uint8)[: bounds[-1]]
    lengths = np.diff(bounds)
    if lengths.min() < 1 or lengths.max() > 18 or ((marks[bounds[0] :] - np.uint8(48)) > 9).any():
        return False
    return not ((marks[bounds[:-1]] == 48) & (lengths > 1)).any()


def _real_days(days: pa.Array) -> NDArray[np.bool_]:
    unique = days.dictionary_encode()
    real = np.array([_is_day(text) for text in unique.dictionary.to_pylist()], np.bool_)
    found: NDArray[np.bool_] = real[unique.indices.to_numpy()]
    return found


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def doubles_keep(values: pa.Array) -> bool:
    """Whether a double gives back every one of an array of decimal numbers, when written with up to 17 digits."""
    long = values.filter(pc.greater(pc.binary_length(values), _SURE_DIGITS))
    others = long.filter(pc.not_equal(pc.cast(pc.cast(long, pa.float64()), pa.string()), long)).to_pylist()
    return all(Decimal(text) in (Decimal(repr(float(text))), Decimal(f"{float(text):.17g}")) for text in others)


@dataclass
class Tally:
    """What the values of one column were, added up batch by batch."""

    counts: Counter[Kind] = field(default_factory=Counter)
    low: int = 0
    high: int = 0
    exact: bool = False
    """Whether there is a decimal number that a double would round."""
    marked: bool = False
    """Whether there are digits with leading zeros or a plus, which no number keeps."""
    texts: list[tuple[int, str]] = field(default_factory=list)
    """(line, value) of the first that are plain text."""

    def add(self, values: pa.Array, lines: NDArray[np.int64]) -> None:
        """Values without NULLs, and the line of each."""
        kinds = classify(values)
        present, counts = np.unique(kinds, return_counts=True)
        for kind, count in zip(present, counts, strict=True):
            self.counts[Kind(kind)] += int(count)
        if Kind.INTEGER in present:
            whole = values if len(present) == 1 else values.filter(pa.array(kinds == Kind.INTEGER))
            ends = pc.min_max(pc.cast(whole, pa.int64())).as_py()
            self.low, self.high = min(self.low, ends["min"]), max(self.high, ends["max"])
        if Kind.DECIMAL in present and not self.exact:
            self.exact = not doubles_keep(values.filter(pa.array(kinds == Kind.DECIMAL)))
        if Kind.CODE in present and not self.marked:
            codes = values.filter(pa.array(kinds == Kind.CODE))
            self.marked = pc.any(pc.match_substring_regex(codes, "^([+]|[+-]?0[0-9])")).as_py()
        if Kind.TEXT in present and len(self.texts) < KEPT_TEXTS:
            found = np.flatnonzero(kinds == Kind.TEXT)[: KEPT_TEXTS - len(self.texts)]
            self.texts += zip(lines[found].tolist(), values.take(pa.array(found)).to_pylist(), strict=True)

    @property
    def misfits(self) -> int:
        """Values that are plain text."""
        return self.counts[Kind.TEXT]

    def narrowest(self) -> str:
        """The type of the column, and text where there is none. Up to `MISFITS` of the values may not fit it."""
        total = self.counts.total()
        if not total or self.misfits > min(MISFITS * total, KEPT_TEXTS - 1):
            return "text"
        return self.type_of(set(self.counts) - {Kind.TEXT})

    def nearly(self) -> str | None:
        """The type that four fifths of the values have, where the column is text."""
        if not self.misfits or 5 * self.misfits >= self.counts.total():
            return None
        kind = self.type_of(set(self.counts) - {Kind.TEXT})
        return kind if kind != "text" else None

    def meant(self) -> tuple[str, str] | None:
        """The type that PostgreSQL would take the values for, where the column is text for little, and what that is."""
        why, whole = "whole numbers that a bigint does not hold", self
        if self.misfits:
            why, whole = "blanks around values", replace(self, counts=self.counts.copy(), texts=[])
            del whole.counts[Kind.TEXT]
            texts = pa.array([value for _, value in self.texts], pa.string())
            whole.add(pc.utf8_trim_whitespace(texts), np.array([line for line, _ in self.texts], np.int64))
        kinds = set(+whole.counts)
        kind = whole.type_of(kinds)
        if Kind.CODE in kinds and not whole.marked and kinds <= {Kind.INTEGER, Kind.CODE, Kind.DECIMAL}:
            kind = "numeric"
        return (kind, why) if kind not in ("text", "uuid") else None

    def type_of(self, kinds: set[Kind]) -> str:
        kinds = {kind for kind in kinds if self.counts[kind]}
        if kinds == {Kind.INTEGER}:
            return "integer" if self.low >= -(2**31) and self.high < 2**31 else "bigint"
        if Kind.DECIMAL in kinds and kinds <= {Kind.INTEGER, Kind.DECIMAL}:
            return "numeric" if self.exact or max(-self.low, self.high) > 2**53 else "double precision"
        return next((name for name, held in HOLDS.items() if kinds and kinds <= held), "text")


HOLDS: dict[str, set[Kind]] = {
    "boolean": {Kind.BOOLEAN},
    "date": {Kind.DATE},
    "timestamp": {Kind.DATE, Kind.TIMESTAMP},
    "timestamptz": {Kind.TIMESTAMPTZ},
    "uuid": {Kind.UUID},
}
"""In the order in which they are tried. A time with a zone beside one without is text: which zone would that be?"""

SURE: dict[str, Sequence[Kind]] = {
    "smallint": (Kind.INTEGER,),
    "integer": (Kind.INTEGER,),
    "bigint": (Kind.INTEGER,),
    "real": (),
    "double precision": (Kind.INTEGER, Kind.DECIMAL),
    "numeric": (Kind.INTEGER, Kind.CODE, Kind.DECIMAL),
    "boolean": (Kind.BOOLEAN,),
    "date": (Kind.DATE,),
    "timestamp without time zone": (Kind.DATE, Kind.TIMESTAMP),
    "timestamp with time zone": (Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ),
    "uuid": (Kind.UUID,),
}
"""Kinds whose every value PostgreSQL's type surely takes, by format_type's name; of the others the server is asked."""

RANGES = {"smallint": 2**15, "integer": 2**31}


def surely_fit(values: pa.Array, type: str) -> NDArray[np.bool_]:
    """Which of an array of strings without NULLs PostgreSQL's `type` (as format_type names it) takes for sure."""
    if type == "text":
        return np.ones(len(values), np.bool_)
    if limit := re.fullmatch(r"(?:character varying|varchar)\((\d+)\)", type):
        return np.asarray(pc.less_equal(pc.utf8_length(values), int(limit[1])).to_numpy(zero_copy_only=False))
    if not SURE.get(type):
        return np.zeros(len(values), np.bool_)
    kinds = classify(values)
    sure = np.isin(kinds, np.array(SURE[type], np.uint8))
    if type in RANGES and sure.any():
        numbers = pc.cast(values.filter(pa.array(sure)), pa.int64()).to_numpy()
        sure[sure] = (numbers >= -RANGES[type]) & (numbers < RANGES[type])
    return sure
