"""Parsers of the command line's texts, where Python takes lists, numbers and dicts."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from recstore.errors import InvalidInput


def lengths(text: str) -> tuple[int, ...]:
    """Return "10,20" as (10, 20). Raises InvalidInput."""
    parts = [part for part in re.split(r"[,\s]+", text.strip()) if part]
    if not parts or not all(re.fullmatch(r"[0-9]{1,6}", part) and int(part) for part in parts):
        raise InvalidInput(f"--k is {text!r}: write the lengths of the lists as whole numbers, for instance 10,20.")
    return tuple(sorted({int(part) for part in parts}))


def sample(text: str) -> int | float:
    """Return "1000" as 1000, "10%" as 0.1. Raises InvalidInput."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(%?)\s*", text)
    if match and match[2] and 0 < float(match[1]) <= 100:
        return float(match[1]) / 100
    if match and not match[2] and match[1].isdigit() and int(match[1]):
        return int(match[1])
    raise InvalidInput(f"--users is {text!r}: write how many, for instance 1000, or a share of them, for instance 10%.")


def share(text: str) -> float:
    """Return "20%" or "0.2" as 0.2. Raises InvalidInput."""
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        raise InvalidInput(f"--share is {text!r}: write it as 20% or 0.2.") from None
    return number / 100 if text.strip().endswith("%") else number


def values(texts: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return ["factors=64,128"] as {"factors": ["64", "128"]}. Raises InvalidInput."""
    lists = {}
    for text in texts:
        name, _, rest = text.partition("=")
        lists[name.strip().replace("-", "_")] = [value.strip() for value in rest.split(",") if value.strip()]
        if not rest.strip(" ,"):
            raise InvalidInput(f"--grid is {text!r}: write it as name=value,value, for instance factors=64,128.")
    return lists


def types(texts: Sequence[str]) -> Mapping[str, str]:
    """Return ["view_count=integer"] as {"view_count": "integer"}. Raises InvalidInput."""
    kinds = {}
    for text in texts:
        name, _, kind = map(str.strip, text.partition("="))
        if not (name and kind):
            raise InvalidInput(f"--type is {text!r}: write it as COLUMN=TYPE, for instance view_count=integer.")
        kinds[name] = kind
    return kinds


def names(text: Sequence[str] | str | None) -> Sequence[str] | None:
    """Return "id,title" as ["id", "title"], and a list as it is."""
    return [name.strip() for name in text.split(",")] if isinstance(text, str) else text


def path(file: str | Path | None) -> Path | None:
    """Return a Path, if there is one."""
    return None if file is None else Path(file)
