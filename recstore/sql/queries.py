"""Files of named SQL: `-- name: load_items` (or `-- object: view x`) starts a statement, comments above it explain it.

Parameters are %(name)s; statements on a recommender's own objects, whose names vary, are next to the code that runs them."""

import re
from functools import cache
from importlib import resources

_HEADER = re.compile(r"^-- (?:name|object): (.+)$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@cache
def load(path: str) -> dict[str, str]:
    """Name -> SQL text of `recstore/sql/<path>`, in the file's order."""
    text = resources.files("recstore").joinpath("sql", path).read_text()
    parts = _HEADER.split(text)[1:]
    return {name.strip(): sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)}


def query(name: str) -> str:
    """The named statement of `recstore/sql/`, in whichever of its files it is."""
    return _queries()[name]


@cache
def _queries() -> dict[str, str]:
    files = sorted(
        file.name for file in resources.files("recstore").joinpath("sql").iterdir() if file.name.endswith(".sql")
    )
    return {name: sql for file in files for name, sql in load(file).items()}


def fill(template: str, values: dict[str, str]) -> str:
    """`template` with each {name} replaced; braces around anything else (an array literal) stay as they are.

    The values are SQL text: identifiers are quoted by the caller. An unknown name raises KeyError.
    """
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)
