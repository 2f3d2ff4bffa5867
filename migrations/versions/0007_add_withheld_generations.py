"""Add withheld generations, which go live only when an operator publishes them."""

from recstore.migrations.frozen import execute_sql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_sql("0007_up.sql")


def downgrade() -> None:
    execute_sql("0007_down.sql")
