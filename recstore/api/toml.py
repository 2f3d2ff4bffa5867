"""A definition as a TOML file for people: every section and setting with its meaning; defaults are commented out.

`options.read_toml` reads the file back as the same definition.
"""

import json
import textwrap
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from recstore.api.options import SECTIONS
from recstore.definition import Definition, Titles

WIDTH = 100
"""Width of comments in characters."""

HEAD = """Settings of a recommender, for recstore create NAME --file {file}
Lines that are commented out show the default, or an unset value. To change a setting later: recstore alter NAME --file {file}"""
"""Comment at the beginning of a file of settings."""


def settings_file(definition: Definition, file: str | Path) -> str:
    """Return the text of a file of settings of that name, for `recstore create` and `alter`.

    Values that differ from the defaults are set, and the source's table with its columns; everything else is a comment.
    """
    parts = [_comment(HEAD.format(file=file))]
    for section in Definition.model_fields:
        parts += ["", *_section(section, SECTIONS.get(section, Titles), getattr(definition, section))]
    return "\n".join([*parts, ""])


def _section(name: str, model: type[BaseModel], values: BaseModel | None) -> list[str]:
    lines = [_comment(" ".join((model.__doc__ or "").split()))] if model.__doc__ else []
    lines.append(f"[{name}]" if values is not None else f"#[{name}]")
    chosen = values.model_fields_set if values is not None else set()
    for field, info in model.model_fields.items():
        if info.description:
            lines.append(_comment(info.description))
        value = getattr(values, field) if values is not None else None
        default = None if info.is_required() else info.get_default()
        if values is not None and value is not None and (field in chosen or value != default):
            lines.append(f"{field} = {literal(value)}")
        else:
            lines.append(f"#{field} =" + ("" if default is None else f" {literal(default)}"))
    return lines


def literal(value: Any) -> str:
    """Return a value in TOML: JSON, except for tables and for one character that JSON does not escape."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)} = {literal(one)}" for key, one in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    lines = [line for part in text.split("\n") for line in (textwrap.wrap(part, WIDTH) or [""])]
    return "\n".join(f"# {line}".rstrip() for line in lines)
