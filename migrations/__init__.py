"""Alembic migrations of recstore's own schemas. Their SQL is frozen in `sql/`; they import nothing of recstore's code."""
