"""Refuse requests for lists where the definition names no table for them."""

from recstore.migrations.frozen import execute_sql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_sql("0010_up.sql")


def downgrade() -> None:
    execute_sql("0010_down.sql")
