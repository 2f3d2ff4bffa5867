"""Writes docs/settings.md and docs/cli.md from the code: `make docs`. A test compares."""

from pathlib import Path
from typing import get_origin

import cli_page

from recstore.api.options import SECTIONS, flag
from recstore.config import Settings

PROCESS = """# Settings

Written by `make docs` from the code.

## Of the process: environment variables

The command line warns of any other variable `RECSTORE_..`, which has no effect.

| variable | default | |
|---|---|---|"""

RECOMMENDER = """
## Of a recommender

Options of `recstore create` and `recstore alter`; in a TOML file (`recstore create retail --file retail.toml`) the key
in its section. Write `none` to unset one. `[storage]` is fixed at creation.

| option | section and key | default | |
|---|---|---|---|"""

TITLES = "| `--titles TABLE:ID:TITLE` | `[titles]` `table`, `item`, `title` |  | lookup table of titles, for people |"


def settings_page() -> str:
    lines = [PROCESS]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `RECSTORE_{name.upper()}` | {_default(field.get_default())} | {field.description} |")
    lines.append(RECOMMENDER)
    for section, model in SECTIONS.items():
        for name, field in model.model_fields.items():
            given = "in a file only" if get_origin(field.annotation) is dict else f"`--{flag(section, name)}`"
            option = f"| {given} | `[{section}]` `{name}` | {_default(field.get_default())} |"
            lines.append(f"{option} {field.description} |")
    return "\n".join([*lines, TITLES, ""])


def _default(value: object) -> str:
    return "" if value is None or value == {} else f"`{value}`"


PAGES = {"settings.md": settings_page, "cli.md": cli_page.page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        Path(__file__).with_name(name).write_text(page())
