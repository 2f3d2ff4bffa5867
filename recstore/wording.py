"""Plain words: what is wrong with a value, since pydantic's own are for programmers; how many there are of something."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

_WORDS = {
    "literal_error": "it must be {expected}",
    "greater_than": "it must be above {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be below {lt}",
    "less_than_equal": "it must be at most {le}",
    "finite_number": "it must be a finite number",
    "int_parsing": "it must be a whole number",
    "int_parsing_size": "it has too many digits",
    "int_from_float": "it must be a whole number",
    "int_type": "it must be a whole number",
    "float_parsing": "it must be a number",
    "float_type": "it must be a number",
    "bool_parsing": "it must be true or false",
    "bool_type": "it must be true or false",
    "string_type": "it must be text",
    "missing": "it is required",
    "model_type": "it must be a section",
    "dict_type": "it must be a table of values",
    "is_instance_of": "it must be a {class}",
    "sequence_str": "it must be a list",
    "unexpected_keyword_argument": "this option does not exist",
}
"""Messages by type of error, with fields from the error's `ctx`."""


def what_is_wrong(error: Mapping[str, Any]) -> str:
    """Describe one of `ValidationError.errors()` as the end of a sentence, without full stop."""
    if str(error["input"]).strip().lower() == "nan" and "than" in error["type"]:
        return "it must be a number"
    known = {name: _plain(value) for name, value in error.get("ctx", {}).items()}
    words = _WORDS.get(error["type"])
    return words.format_map(known) if words else error["msg"].removeprefix("Value error, ").rstrip(".")


def verdict_words(verdict: Mapping[str, Any]) -> str:
    """Describe a stored verdict."""
    words = []
    if verdict["popularity"]:
        baseline = verdict["popularity"]
        metric = baseline.get("metric", "ndcg@20")  # the generations of earlier versions have no other
        words.append(f"{metric.upper()} {baseline['of_new']:.4f}, {baseline['other']} {baseline['of_other']:.4f}")
    if live := verdict["live"]:
        words.append(f"{live['other']} {live['of_other']:.4f} against {live['of_new']:.4f}")
    words.append(f"on {verdict['pairs']:,} held-out pairs of {verdict['users']:,} users")
    if verdict["unknown"]:
        words.append(f"not compared: {verdict['unknown']}")
    return "; ".join(words)


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys, changes of the writing direction included; not tabs and ends of lines."""


def printable(text: str) -> str:
    """Return text with its control characters escaped as in JSON: `\\u001b` for ESC."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 list`, `2,000 lists`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _plain(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).replace("'", "")


def duration(length: timedelta | float) -> str:
    """Format a duration in at most two units: 0.4 s, 12 s, 3 min 5 s, 2 h 13 min, 4 d 3 h."""
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def age(length: timedelta) -> str:
    """Format an age in one unit: 119 s, 119 min, 47 h, 2 d."""
    seconds = max(length.total_seconds(), 0)
    for unit, size, least in (("d", 86400, 172800), ("h", 3600, 7200), ("min", 60, 120)):
        if seconds >= least:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
