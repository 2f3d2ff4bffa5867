"""Add background work: requests, schedules, progress of runs."""

from recstore.migrations.frozen import execute_sql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_sql("0002_up.sql")


def downgrade() -> None:
    execute_sql("0002_down.sql")
