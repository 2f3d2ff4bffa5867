"""Alembic migrations of recstore's own schemas; the SQL of each is frozen in `sql/`. Nothing here imports recstore's code
but `env`, which reads the table definitions to compare them."""
