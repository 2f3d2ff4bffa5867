"""Recommendations that live in the application's own Postgres.

`Recommender` is what an application in Python uses; the rest is for whoever runs the trainings (`recstore.pipeline`).
"""

import importlib
from typing import TYPE_CHECKING, Any

from recstore.version import __version__

if TYPE_CHECKING:
    from recstore.definition import Definition
    from recstore.errors import RecstoreError
    from recstore.recommend import Recommender

__all__ = ["Definition", "Recommender", "RecstoreError", "__version__"]


def __getattr__(name: str) -> Any:
    """The public names are imported when they are asked for: an application pays for what it uses."""
    homes = {"Definition": "definition", "RecstoreError": "errors", "Recommender": "recommend"}
    if name not in homes:
        raise AttributeError(f"module 'recstore' has no attribute {name!r}")
    return getattr(importlib.import_module(f"recstore.{homes[name]}"), name)
