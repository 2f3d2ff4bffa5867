"""A definition as a TOML file for people: every section and setting there is, with what it means; the defaults commented out.

Generic over `definition.Definition`; what it writes, `options.read_toml` reads back as the same definition.
"""

import json
import textwrap
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from recstore.definition import Definition

WIDTH = 100
"""Of comments."""


HEAD = """Who viewed what, and how often: a recommender's settings, for recstore create NAME --file {file}
What is commented out is the default, or unset. To change it later: recstore alter NAME --file {file}"""
"""The comment at the beginning of a file of settings."""


def settings_file(definition: Definition, file: str | Path) -> str:
    """The text of a file of settings of that name, for `recstore create` and `alter`."""
    return commented(definition, HEAD.format(file=file))


def commented(definition: Definition, head: str) -> str:
    """The file's text; `head` is the comment at its beginning. What differs from the defaults, and the whole source's
    table with its columns, is set; everything else is a comment."""
    parts = [_comment(head)]
    for section, info in Definition.model_fields.items():
        parts.append("")
        parts += _section(section, _model(info), getattr(definition, section))
    return "\n".join([*parts, ""])


def _section(name: str, model: type[BaseModel], values: BaseModel | None) -> list[str]:
    lines = [_comment(" ".join((model.__doc__ or "").split()))] if model.__doc__ else []
    lines.append(f"[{name}]" if values is not None else f"#[{name}]")
    given = values.model_fields_set if values is not None else set()
    for field, info in model.model_fields.items():
        if info.description:
            lines.append(_comment(info.description))
        value = getattr(values, field) if values is not None else None
        default = None if info.is_required() else info.get_default()
        if values is not None and value is not None and (field in given or value != default):
            lines.append(f"{field} = {literal(value)}")
        else:
            lines.append(f"#{field} =" + ("" if default is None else f" {literal(default)}"))
    return lines


def _model(info: FieldInfo) -> type[BaseModel]:
    """The section's class, of `Titles | None` too."""
    kinds = [kind for kind in get_args(info.annotation) or (info.annotation,) if kind is not NoneType]
    model = kinds[0]
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    return model


def literal(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_string(key)} = {literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(literal, value)) + "]"
    return repr(value)


def _string(text: str) -> str:
    """JSON's strings are TOML's, but for a character that JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    lines = [line for part in text.split("\n") for line in (textwrap.wrap(part, WIDTH) or [""])]
    return "\n".join(f"# {line}".rstrip() for line in lines)
