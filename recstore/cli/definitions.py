"""A definition from the command line: one option per setting, made from `recstore.definition`, over a TOML file or what
the recommender has."""

import inspect
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from recstore.definition import (
    Confidence,
    Definition,
    Filters,
    Gate,
    Hyperparameters,
    Publication,
    Schedule,
    Source,
    Storage,
)
from recstore.errors import InvalidInput

SECTIONS: dict[str, type[BaseModel]] = {
    "source": Source,
    "filters": Filters,
    "confidence": Confidence,
    "hyperparameters": Hyperparameters,
    "storage": Storage,
    "publication": Publication,
    "gate": Gate,
    "schedule": Schedule,
}

FLAGS = {
    ("confidence", "function"): "confidence",
    ("confidence", "eps"): "log-eps",
    ("confidence", "k1"): "bm25-k1",
    ("confidence", "b"): "bm25-b",
    ("confidence", "scale"): "confidence-scale",
    ("publication", "ann_recall"): "ann-recall",
    ("schedule", "cron"): "schedule",
}
"""Flags that are not simply the setting's name."""

_SECTIONS = ", ".join(Definition.model_fields)


def flag(section: str, name: str) -> str:
    """The option of a setting, without its dashes."""
    return FLAGS.get((section, name), name.replace("_", "-"))


def definition_options(*, without: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds an option per setting; the command gets those that were given as `given`: {section: {name: value}}."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        fields = {
            f"{section}__{name}": (section, name, info)
            for section, model in SECTIONS.items()
            if section not in without
            for name, info in model.model_fields.items()
            if get_origin(info.annotation) is not dict  # a table of its own, in TOML files only
        }

        def wrapper(**arguments: Any) -> Any:
            given: dict[str, dict[str, Any]] = {}
            for parameter, (section, name, info) in fields.items():
                value = arguments.pop(parameter)
                if value is not None:
                    none = isinstance(value, str) and value.lower() == "none"
                    given.setdefault(section, {})[name] = info.get_default() if none else value
            return command(**arguments, given=given)

        own = [p for p in inspect.signature(command).parameters.values() if p.name != "given"]
        made = [
            inspect.Parameter(
                parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(section, name, info)
            )
            for parameter, (section, name, info) in fields.items()
        ]
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        wrapper.__signature__ = inspect.Signature(own + made)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in own + made}
        wrapper.__doc__, wrapper.__name__ = command.__doc__, command.__name__
        return wrapper

    return decorate


def _option(section: str, name: str, info: FieldInfo) -> Any:
    kind = _plain_type(info.annotation)
    text = f"--{flag(section, name)}"
    default = info.get_default()
    help = (info.description or "") + ("" if default is None else f" [default: {default}]")
    common: Any = {"help": help, "rich_help_panel": section.capitalize(), "show_default": False}
    if kind is bool:
        return Annotated[bool | None, typer.Option(f"{text}/--no-{flag(section, name)}", **common)]
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    metavar = "|".join(choices) if choices else {int: "N", float: "X"}.get(kind, "TEXT")
    return Annotated[str | None, typer.Option(text, metavar=metavar, **common)]


def _plain_type(annotation: Any) -> Any:
    """int of `int | None` and of `Annotated[int, ..]`."""
    if get_origin(annotation) is Annotated:
        return _plain_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _plain_type(next(part for part in get_args(annotation) if part is not type(None)))
    return annotation


def read_toml(path: Path, name: str) -> dict[str, dict[str, Any]]:
    """The sections of a TOML file about recommender `name`. Raises InvalidInput with the line of a mistake."""
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput(f"There is no file {path}.") from None
    except OSError as error:
        raise InvalidInput(f"{path} can not be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} can not be read: it is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{path} is not valid TOML: {error}.") from None
    if read.pop("name", name) != name:
        raise InvalidInput(f"{path} is about another recommender than {name!r}.")
    for section, values in read.items():
        if not isinstance(values, dict):
            raise InvalidInput(
                f"{path}: {section} = {values!r} is outside of any section; there are the sections {_SECTIONS}."
            )
    return read


def merge(base: dict[str, Any], given: dict[str, dict[str, Any]], titles: str | None) -> Definition:
    """A definition from sections, overridden by options. Raises InvalidInput naming the option or the TOML key."""
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in base.items()}
    for section, values in given.items():
        merged[section] = dict(merged.get(section) or {}) | values
        if section == "source" and {"query", "table"} & values.keys():
            other = "table" if values.get("query") else "query"
            if other not in values:
                merged[section].pop(other, None)
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
        raise InvalidInput(" ".join(_sentence(e) for e in error.errors()[:3])) from None


def _titles(text: str) -> dict[str, str]:
    parts = text.split(":")
    if len(parts) != 3 or not all(parts):
        raise InvalidInput(
            f"--titles is {text!r}: write it as table:id_column:title_column, for instance shop.products:id:title."
        )
    return dict(zip(("table", "item", "title"), parts, strict=True))


def _sentence(error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    message = error["msg"].removeprefix("Value error, ")
    if len(location) < 2:
        return f"{location[0] if location else 'definition'}: {message}."
    section, name = location[0], location[1]
    if error["type"] == "extra_forbidden":
        known = ", ".join(SECTIONS[section].model_fields) if section in SECTIONS else ""
        return f"{name!r} is no setting of [{section}]; there are {known}."
    return f"--{flag(section, name)} ({section}.{name}) is {error['input']!r}: {message}."
