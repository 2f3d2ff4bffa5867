"""Recommendations that live in the application's own Postgres.

`Recommender` is what an application in Python uses; the rest is for whoever runs the trainings (`recstore.pipeline`).
"""

from recstore.definition import Definition
from recstore.errors import RecstoreError
from recstore.recommend import Recommender
from recstore.version import __version__

__all__ = ["Definition", "Recommender", "RecstoreError", "__version__"]
