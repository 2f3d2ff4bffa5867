"""Load named SQL from files: `-- name: load_items` or `-- object: view x` starts a statement.

Parameters are %(name)s. Statements on a recommender's own objects, whose names vary, are next to the code that executes them.
"""

import re
from functools import cache
from importlib import resources

_HEADER = re.compile(r"^-- (?:name|object): (.+)$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@cache
def load(path: str) -> dict[str, str]:
    """Return name -> SQL text of `recstore/sql/<path>`, in the order of the file."""
    text = resources.files("recstore").joinpath("sql", path).read_text()
    parts = _HEADER.split(text)[1:]
    return {name.strip(): sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)}


def query(name: str) -> str:
    """Return the statement with this name from any file of `recstore/sql/`."""
    return _queries()[name]


@cache
def _queries() -> dict[str, str]:
    files = sorted(
        file.name for file in resources.files("recstore").joinpath("sql").iterdir() if file.name.endswith(".sql")
    )
    return {name: sql for file in files for name, sql in load(file).items()}


def fill(template: str, values: dict[str, str]) -> str:
    """Return `template` with each {name} replaced; other braces, as in an array literal, stay.

    The values are SQL text: the caller quotes identifiers. Raises KeyError for an unknown name.
    """
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)
