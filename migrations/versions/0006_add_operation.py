"""Add operation: publications that a rollback holds, runs that are cancelled, and trainings that the gate refused."""

from recstore.migrations.frozen import execute_sql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_sql("0006_up.sql")


def downgrade() -> None:
    execute_sql("0006_down.sql")
