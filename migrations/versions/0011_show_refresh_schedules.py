"""Show the schedules of refreshes and lists in recstore.status."""

from recstore.migrations.frozen import execute_sql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_sql("0011_up.sql")


def downgrade() -> None:
    execute_sql("0011_down.sql")
