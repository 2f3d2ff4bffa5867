"""Add lists: when they are due, who asks for them, and runs that hold up no training."""

from recstore.migrations.frozen import execute_sql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_sql("0005_up.sql")


def downgrade() -> None:
    execute_sql("0005_down.sql")
