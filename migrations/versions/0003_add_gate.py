"""Add the gate: held-out pairs, their metrics, and force."""

from recstore.migrations.frozen import execute_sql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_sql("0003_up.sql")


def downgrade() -> None:
    execute_sql("0003_down.sql")
