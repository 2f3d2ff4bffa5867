"""Recommendations that live in the application's own Postgres."""

from recstore.version import __version__

__all__ = ["__version__"]
