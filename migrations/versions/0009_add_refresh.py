"""Add refreshes: changed users and new items enter the live generation."""

from recstore.migrations.frozen import execute_sql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_sql("0009_up.sql")


def downgrade() -> None:
    execute_sql("0009_down.sql")
