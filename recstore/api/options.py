"""A definition from sections and flat options: `--min-item-views 3` is `min_item_views=3` in Python and `[filters]
min_item_views = 3` in a TOML file. Knows no database."""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from recstore.definition import Definition
from recstore.errors import InvalidInput
from recstore.wording import what_is_wrong

SECTIONS: dict[str, type[BaseModel]] = {
    name: info.annotation  # type: ignore[misc]
    for name, info in Definition.model_fields.items()
    if name != "titles"
}
"""Sections of a definition whose settings are options of their own."""

FLAGS = {
    ("candidates", "query"): "candidates",
    ("candidates", "table"): "candidates-table",
    ("candidates", "column"): "candidates-column",
    ("candidates", "condition"): "candidates-condition",
    ("fallback", "steps"): "fallback",
    ("fallback", "window"): "fallback-window",
    ("fallback", "half_life"): "fallback-half-life",
    ("fallback", "query"): "fallback-query",
    ("exclusions", "query"): "exclude",
    ("confidence", "function"): "confidence",
    ("confidence", "eps"): "log-eps",
    ("confidence", "k1"): "bm25-k1",
    ("confidence", "b"): "bm25-b",
    ("confidence", "scale"): "confidence-scale",
    ("publication", "ann_recall"): "ann-recall",
    ("schedule", "cron"): "schedule",
    ("refresh", "cron"): "refresh-schedule",
    ("lists", "k"): "lists-k",
    ("lists", "cron"): "lists-schedule",
}
"""Flags that differ from the setting's name."""

_SECTIONS = ", ".join(Definition.model_fields)


def flag(section: str, name: str) -> str:
    """Return the option of a setting, without its dashes."""
    return FLAGS.get((section, name), name.replace("_", "-"))


def parsed(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file. Raises InvalidInput with the line of a mistake."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput(f"There is no file {path}.") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} cannot be read: it is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{path} is not valid TOML: {error}.") from None


def read_toml(path: Path, name: str) -> dict[str, dict[str, Any]]:
    """Return the sections of a TOML file about recommender `name`. Raises InvalidInput."""
    read = parsed(path)
    if read.pop("name", name) != name:
        raise InvalidInput(f"{path} is about another recommender than {name!r}.")
    for section, values in read.items():
        if not isinstance(values, dict):
            raise InvalidInput(
                f"{path}: {section} = {values!r} is outside of any section; there are the sections {_SECTIONS}."
            )
    return read


def by_section(flat: Mapping[str, Any], *, without: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Return {section: {name: value}} from options by their flat names, `min_item_views` or `schedule`; None is the default.

    Raises InvalidInput for an unknown name, or one of a section in `without`.
    """
    known = {
        flag(section, name).replace("-", "_"): (section, name, info)
        for section, model in SECTIONS.items()
        if section not in without
        for name, info in model.model_fields.items()
    }
    chosen: dict[str, dict[str, Any]] = {}
    for option, value in flat.items():
        if option not in known:
            like = ", ".join(difflib.get_close_matches(option, known, 3)) or ", ".join(sorted(known))
            raise InvalidInput(f"There is no option {option!r} here; there are {like}.")
        section, name, info = known[option]
        chosen.setdefault(section, {})[name] = info.get_default() if value is None else value
    return chosen


def laid_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return sections overridden by others, value by value."""
    laid = dict(base)
    for section, values in over.items():
        laid[section] = (laid.get(section) or {}) | values if isinstance(values, dict) else values
    return laid


def merge(base: dict[str, Any], given: dict[str, dict[str, Any]], titles: str | None) -> Definition:
    """Return a definition from sections, overridden by options. Raises InvalidInput naming the option or the TOML key."""
    merged, source, candidates = laid_over(base, given), given.get("source", {}), given.get("candidates", {})
    if {"query", "table"} & source.keys():
        other = "table" if source.get("query") else "query"
        merged["source"] = {name: value for name, value in merged["source"].items() if name != other or name in source}
    if {"query", "table"} & candidates.keys():
        merged["candidates"] = candidates  # settings of the former table do not apply to another one
    if titles is not None:
        merged["titles"] = None if titles.lower() == "none" else _titles(titles)
    for section in merged.keys() - Definition.model_fields.keys():
        raise InvalidInput(
            f"[{section}] is no section of a recommender; there are {', '.join(Definition.model_fields)}."
        )
    if "source" not in merged:
        raise InvalidInput(
            "Where are the view counts? Give --table schema.table, --query 'SELECT ..' or --file FILE.toml."
        )
    try:
        return Definition.model_validate(merged)
    except ValidationError as error:
        sentences = {e["loc"][:2]: _sentence(e) for e in reversed(error.errors())}  # the first of each setting
        raise InvalidInput(" ".join(list(sentences.values())[::-1][:3])) from None


def _titles(text: str) -> dict[str, str]:
    parts = text.split(":")
    if len(parts) not in (3, 4) or not all(parts):
        raise InvalidInput(
            f"--titles is {text!r}: write it as table:id_column:title_column, for instance shop.products:id:title, with"
            " :picture_column behind it where a column has the URLs of pictures."
        )
    return dict(zip(("table", "item", "title", "picture"), parts, strict=False))


def _sentence(error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    message = what_is_wrong(error)
    if len(location) < 2:
        return f"{location[0] if location else 'definition'}: {message}."
    section, name = location[0], location[1]
    if error["type"] == "extra_forbidden":
        known = ", ".join(SECTIONS[section].model_fields) if section in SECTIONS else ""
        return f"{name!r} is no setting of [{section}]; there are {known}."
    key = ".".join([section, name, *location[2:3]])
    if error["type"] == "missing":
        return f"{key} is missing."
    if location[2:]:  # of a trainer that another package brings: whatever is none of these
        return f"{key} is {error['input']!r}: it must be true or false, a number or text."
    where = f"--{flag(section, name)} ({key})" if section in SECTIONS else key
    return f"{where} is {error['input']!r}: {message}."
