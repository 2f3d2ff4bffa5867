"""Recommendations that live in the application's own Postgres.

An application reads with `Recommender` or, asynchronously, `AsyncRecommender`; an operator uses `Recstore`, the command line as
methods. docs/python.md has examples.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from recstore.errors import installed_parts

if TYPE_CHECKING:
    from recstore import errors
    from recstore.api import rows
    from recstore.api.store import Recstore
    from recstore.config import Settings
    from recstore.definition import Definition
    from recstore.errors import RecstoreError
    from recstore.recommend import (
        AsyncRecommender,
        AudienceMember,
        Explanation,
        PopularItem,
        RankedItem,
        Recommendation,
        Recommender,
        SimilarItem,
        SimilarUser,
    )
    from recstore.runs import Reporter

__all__ = [
    "AsyncRecommender",
    "AudienceMember",
    "Definition",
    "Explanation",
    "PopularItem",
    "RankedItem",
    "Recommendation",
    "Recommender",
    "Recstore",
    "RecstoreError",
    "Reporter",
    "Settings",
    "SimilarItem",
    "SimilarUser",
    "__version__",
    "errors",
    "rows",
]

_HOMES = {
    "api.store": ("Recstore",),
    "config": ("Settings",),
    "definition": ("Definition",),
    "errors": ("RecstoreError",),
    "recommend": (
        "AsyncRecommender",
        "AudienceMember",
        "Explanation",
        "PopularItem",
        "RankedItem",
        "Recommendation",
        "Recommender",
        "SimilarItem",
        "SimilarUser",
    ),
    "runs": ("Reporter",),
}
"""Module of each public name."""

_MODULES = {"errors": "recstore.errors", "rows": "recstore.api.rows"}
"""Public names that are modules."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is used: an application pays for nothing else."""
    for home, names in _HOMES.items():
        if name in names:
            with installed_parts():
                return getattr(importlib.import_module(f"recstore.{home}"), name)
    if name == "__version__":
        return importlib.metadata.version("recstore")
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module 'recstore' has no attribute {name!r}")
